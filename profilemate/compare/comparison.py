"""Sessions side by side, the first being the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.compare.catalogue import NUMBERS
from profilemate.compare.change import LEAST_CHANGE, Change, compared, judged
from profilemate.compare.evaluate import Evaluator
from profilemate.compare.load import load_doubts, load_sentences
from profilemate.compare.material import Material, frames_of
from profilemate.compare.noise import Estimate
from profilemate.compare.settings import Difference, differences
from profilemate.compare.steady import Window, steady_window
from profilemate.compare.totals import Total, totals
from profilemate.session.alive import living
from profilemate.session.records import items_of, table_of, text, whole

if TYPE_CHECKING:
    from profilemate.frames.session import Session


@dataclass(frozen=True)
class Side:
    """What one session gives to a comparison. `estimates` are of the steady part, `whole` of all of it, by number."""

    label: str
    name: str
    path: str
    material: Material
    estimates: dict[str, Estimate]
    whole: dict[str, float | None]
    totals: tuple[Total, ...]
    notes: tuple[str, ...]

    @property
    def steady(self) -> Window | None:
        """The part that is compared."""
        return self.material.steady


@dataclass(frozen=True)
class Comparison:
    """`changes` has one list per session after the first, in the order of NUMBERS."""

    sides: tuple[Side, ...]
    settings: tuple[Difference, ...]
    changes: tuple[tuple[Change, ...], ...]
    load: tuple[str, ...]
    """Why the sessions did not have the same load; then a difference of latency is not about a flag."""
    load_doubts: tuple[str, ...]
    """What looks like another load where there is too little to tell."""
    least: float


def compare(
    sessions: Sequence[Session], least: float = LEAST_CHANGE, on_progress: Callable[[str], None] = lambda text: None
) -> Comparison:
    """Read and compare. Raises SessionError where a session cannot be read or a package is missing."""
    sides = []
    for number, session in enumerate(sessions):
        on_progress(f"session {number + 1} of {len(sessions)}")
        sides.append(_side(label(number), session))
    return compared_sides(sides, differences(sessions), least)


def compared_sides(sides: Sequence[Side], settings: Sequence[Difference], least: float) -> Comparison:
    """The statistics of it."""
    pairs = [
        compared(number, sides[0].estimates[number.name], side.estimates[number.name])
        for side in sides[1:]
        for number in NUMBERS
    ]
    found = judged(pairs, least)
    count = len(NUMBERS)
    changes = tuple(tuple(found[n * count : (n + 1) * count]) for n in range(len(sides) - 1))
    sentences = [one for side, some in zip(sides[1:], changes, strict=True) for one in load_sentences(side.label, some)]
    doubts = [one for side, some in zip(sides[1:], changes, strict=True) for one in load_doubts(side.label, some)]
    return Comparison(tuple(sides), tuple(settings), changes, tuple(sentences), tuple(doubts), least)


def label(number: int) -> str:
    """A, B, ... Z, then numbers."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _side(letter: str, session: Session) -> Side:
    metadata = session.metadata
    frames = frames_of(session)
    material = Material(session.info.session_id, frames, metadata, steady_window(frames))
    return side_of(letter, material, str(session.path), _notes(session, material))


def side_of(letter: str, material: Material, path: str = "", notes: Sequence[str] = ()) -> Side:
    """All numbers of one session's material."""
    evaluator = Evaluator(material)
    return Side(
        letter, material.name, path, material,
        {number.name: evaluator.steady(number) for number in NUMBERS},
        {number.name: evaluator.whole(number) for number in NUMBERS},
        totals(material.metadata), tuple(notes),
    )  # fmt: skip


def _notes(session: Session, material: Material) -> list[str]:
    """What makes this session's numbers less than they seem."""
    notes = []
    if running := living(session):
        notes.append(f"still running ({', '.join(process.role for process in running)}): the numbers are so far")
    if material.steady is not None and material.steady.says:
        notes.append(material.steady.says)
    lost = sum(whole(table_of(row).get("rows")) for row in items_of(material.metadata.get("gaps")))
    if lost:
        notes.append(f"{lost} rows were lost or removed: totals are exact where the streams keep them, numbers are not")
    notes += [text(one) for one in items_of(material.metadata.get("findings"))]
    return notes
