"""benchmarks/gpu.json: the newest result of every stage on every card."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

FORMAT = 1


def empty() -> dict[str, Any]:
    """A record with nothing in it."""
    return {"format": FORMAT, "cards": {}}


def load(path: Path) -> dict[str, Any]:
    """A record from a file; an empty one where there is none. Raises ValueError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty()
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("cards"), dict):
        raise ValueError(f"{path.name} is not a record of format {FORMAT}")
    return found


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both records; a stage on a card that is in both is the one with the later date."""
    cards = {card: dict(stages) for card, stages in old["cards"].items()}
    for card, stages in new["cards"].items():
        kept = cards.setdefault(card, {})
        for stage, result in stages.items():
            if stage not in kept or kept[stage]["date"] <= result["date"]:
                kept[stage] = result
    return {"format": FORMAT, "cards": cards}


def save(path: Path, new: dict[str, Any]) -> None:
    """Merge a record into the file, which is whole at every moment."""
    text = json.dumps(merged(load(path), new), indent=1, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
