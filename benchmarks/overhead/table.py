"""The results for a terminal."""

from __future__ import annotations

from typing import Any

from overhead.render import interval, number, quantity
from overhead.verdict import INFORMATION, slowness

HEAD = ("", "with", "without", "effect", "95 % interval", "target", "verdict")
WIDTHS = (60, 9, 9, 17, 19, 8, 17)


def row(*texts: str) -> str:
    """One line; the first column stands left, the others right."""
    first, *rest = texts
    return f"{first:<{WIDTHS[0]}}{''.join(f'{text:>{width}}' for text, width in zip(rest, WIDTHS[1:], strict=True))}".rstrip()


def figure_line(figure: dict[str, Any]) -> str:
    """One figure: medians, and the effect."""
    effect, target, without = figure["effect"], figure["target"], figure["without"]
    verdict = figure["verdict"]
    return row(
        f"  {figure['name']} [{figure['unit']}]",
        number(figure["with"]["median"]),
        number(without["median"] if without else None),
        quantity(effect["estimate"], effect["unit"]),
        interval(effect),
        f"{target['limit']:g}" if target else "",
        "" if verdict == INFORMATION else verdict,
    )


def speed_line(figure: dict[str, Any]) -> str:
    """What the verdict of a figure in units of time is about."""
    effect, times = figure["effect"], slowness(figure) or 1
    at_speed = quantity(effect["estimate"] / times, effect["unit"])
    slower = f"{figure['yardstick']['what']} takes {times:.3g} times as long here"
    return f"  {figure['name']}: {at_speed} at the targets' speed; {slower}"


def text(results: dict[str, Any]) -> str:
    """All benchmarks."""
    lines = [row(*HEAD)]
    for name, benchmark in results["benchmarks"].items():
        lines.append(f"{name}: {benchmark['title']}")
        lines += [figure_line(figure) for figure in benchmark["figures"]]
        lines += [speed_line(figure) for figure in benchmark["figures"] if slowness(figure)]
        lines += [f"  {fact}: {words}" for fact, words in benchmark["facts"].items()]
    return "\n".join(lines)
