"""Draw figures of a session as pictures: PNG, SVG, PDF, an HTML page without network, or the Vega-Lite specification.

The ending of the file says which. `--list` shows the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.export.atomic import write_asked_for
from profilemate.figures import BY_NAME, PACKAGES, draw, one_line, unexpected
from profilemate.figures.figure import Figure, NoFigure
from profilemate.figures.picture import KINDS, Look, encoded, fonts_from
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError
from profilemate.session.find import LATEST, find_session
from profilemate.session.records import printable

if TYPE_CHECKING:
    from profilemate.frames.session import Session

EPILOG = """examples:
  profilemate plot --list
  profilemate plot --what kv_usage -o kv.png
  profilemate plot /tmp/vllm_profiling/session_20250101_120000 --what ttft -o ttft.pdf --font "Times New Roman" --no-title
  profilemate plot --what step_phases --what step_limits -o figures/ --format svg
  profilemate plot --what all -o figures/ --theme dark"""

ALL = "all"
THEMES = ("light", "dark")
LARGEST_PIXELS = 20_000
NEAREST = 3
BAD_INPUT = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument(
        "--what",
        action="append",
        default=[],
        metavar="FIGURE",
        help="which figure; may be repeated; all draws every one",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"FIGURE.{'|'.join(KINDS)}, or a folder; by default FIGURE.png here"
    )
    parser.add_argument("--format", choices=tuple(KINDS), help="of the files in a folder (png)")
    parser.add_argument("--list", action="store_true", help="the figures, a line each")
    parser.add_argument("--json", action="store_true", help="tell what was drawn, or the list, as JSON")
    parser.add_argument("--theme", choices=THEMES, default=THEMES[0])
    parser.add_argument("--width", type=_pixels, metavar="PIXELS", help="of the plot's area (720)")
    parser.add_argument("--height", type=_pixels, metavar="PIXELS", help="of the plot's area; each figure has its own")
    parser.add_argument("--scale", type=_scale, default=2.0, metavar="N", help="pixels of a PNG for each of these (2)")
    parser.add_argument("--font", default="", metavar="NAME", help="font family, such as the one of a paper")
    parser.add_argument("--font-size", type=_points, default=12, metavar="N", help="size of the text (12)")
    parser.add_argument("--fonts-from", metavar="FOLDER", help="a folder with more fonts")
    parser.add_argument("--no-title", action="store_true", help="without the title and the sentence below it")
    parser.add_argument("--transparent", action="store_true", help="without a background")


def _pixels(text: str) -> int:
    return int(_bounded(text, 20, LARGEST_PIXELS))


def _points(text: str) -> int:
    return int(_bounded(text, 4, 100))


def _scale(text: str) -> float:
    return _bounded(text, 0.1, 20)


def _bounded(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Draw; the code is 2 where a figure that was named could not be drawn, or none of all could."""
    if arguments.list:
        return _list(arguments.json)
    names = _names(arguments.what)
    targets = _targets(arguments, names)
    for package in (*PACKAGES, "vl_convert"):
        load(package)
    if arguments.fonts_from:
        if not Path(arguments.fonts_from).is_dir():
            raise SessionError(f"there is no folder {arguments.fonts_from}")
        fonts_from(arguments.fonts_from)
    look = Look(
        arguments.theme, arguments.width, arguments.height, arguments.scale, arguments.font, arguments.font_size,
        not arguments.no_title, arguments.transparent,
    )  # fmt: skip
    from profilemate.frames.session import Session

    session = Session(find_session(arguments.session, configured_directory()))
    told = [_plot(session, name, targets[name], look) for name in names]
    drawn = [one for one in told if one["file"]]
    if arguments.json:
        sys.stdout.write(json.dumps({"session": str(session.path), "figures": told}, indent=1) + "\n")
    else:
        _tell(told)
    return 0 if drawn and (ALL in arguments.what or len(drawn) == len(told)) else BAD_INPUT


def _tell(told: Sequence[dict[str, Any]]) -> None:
    for one in told:
        if one["file"]:
            sys.stdout.write(printable(f"{one['file']}: {one['says']}") + "\n")
            if one["note"]:
                sys.stdout.write(printable(f"  {one['note']}") + "\n")
        else:
            sys.stderr.write(printable(f"profilemate: no {one['name']}: {one['reason']}") + "\n")


def _plot(session: Session, name: str, target: Path, look: Look) -> dict[str, Any]:
    with Progress(f"drawing {name}") as progress:
        session.on_read = progress.read
        found: Figure | NoFigure = draw(session, name)
        if isinstance(found, NoFigure):
            return {"name": name, "file": "", "reason": found.reason}
        try:
            content = encoded(found, target.suffix.lower().removeprefix("."), look)
        except ValueError as error:  # the renderer's: a size or a number that no picture can have
            return {"name": name, "file": "", "reason": f"no picture can be made of its numbers: {one_line(error)}"}
        except Exception as error:
            return {"name": name, "file": "", "reason": unexpected(error)}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_asked_for(target, content)
    return {"name": name, "file": str(target), "says": found.says, "note": found.note}


def _names(wanted: Sequence[str]) -> list[str]:
    """Figures to draw, each once. Raises SessionError, with the nearest names, for one that there is not."""
    if not wanted:
        raise SessionError(
            f"say which figure with --what: {', '.join(BY_NAME)}; `profilemate plot --list` says what each shows"
        )
    for name in wanted:
        if name not in BY_NAME and name != ALL:
            near = (
                get_close_matches(name, BY_NAME, NEAREST, 0.5)
                or [other for other in BY_NAME if name in other][:NEAREST]
            )
            meant = f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(BY_NAME)}"
            raise SessionError(
                f"there is no figure {name!r}; {meant}? `profilemate plot --list` shows all"
                if near
                else f"there is no figure {name!r}; {meant}"
            )
    return list(BY_NAME) if ALL in wanted else list(dict.fromkeys(wanted))


def _targets(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Path]:
    """Where each figure goes. Raises SessionError for an ending that is none, and for several figures in one file."""
    kind = arguments.format or "png"
    if arguments.output is None:
        return {name: Path(f"{name}.{kind}") for name in names}
    output = Path(arguments.output)
    ending = output.suffix.lower().removeprefix(".")
    is_folder = output.is_dir() or arguments.output.endswith(("/", "\\")) or (not ending and len(names) > 1)
    if is_folder:
        return {name: output / f"{name}.{kind}" for name in names}
    if ending not in KINDS:
        raise SessionError(
            f"{output}: the ending says the format, one of {', '.join(KINDS)}; for a folder end it with /"
        )
    if len(names) > 1:
        raise SessionError(
            f"{len(names)} figures do not fit into {output}: name a folder, such as {output.with_suffix('')}/"
        )
    if arguments.format and arguments.format != ending:
        raise SessionError(f"{output} ends in .{ending}, and --format says {arguments.format}")
    return {names[0]: output}


def _list(as_json: bool) -> int:
    if as_json:
        found = [
            {"name": e.name, "title": e.title, "section": e.section, "trackers": e.trackers, "shows": e.shows}
            for e in BY_NAME.values()
        ]
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    width = max(map(len, BY_NAME))
    for entry in BY_NAME.values():
        needs = f" (tracker {' and '.join(entry.trackers)})" if entry.trackers else ""
        sys.stdout.write(f"{entry.name:<{width}}  {entry.shows}{needs}\n")
    return 0
