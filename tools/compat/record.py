"""What was found of each version, as it is kept: signatures.json from source texts, driven.json from runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compat import signatures
from compat.check import Driven
from compat.versions import VERSIONS

DRIVEN = Path(__file__).parent / "driven.json"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def load(path: Path) -> dict[str, Any]:
    """A record by version; empty where there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(path: Path, record: dict[str, Any]) -> None:
    """Write a record, versions in their order."""
    ordered = {version: record[version] for version in VERSIONS if version in record}
    path.write_text(json.dumps(ordered, indent=1) + "\n")


def keep_signatures(version: str, found: dict[str, Any]) -> None:
    """Replace one version's."""
    keep(signatures.SIGNATURES, {**load(signatures.SIGNATURES), version: found})


def keep_driven(version: str, driven: Driven) -> None:
    """Replace one version's."""
    told = {"truth": driven.truth, "graphs": driven.graphs, "untold": driven.untold, "wrong": driven.wrong}
    keep(DRIVEN, {**load(DRIVEN), version: told})
