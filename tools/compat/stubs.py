"""What old vLLM wheels import and this environment lacks: stand-ins that are imported and never used."""

from __future__ import annotations

from pathlib import Path

_ANYTHING = '''"""A stand-in: any name is a class that does nothing."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
'''
_METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"

PACKAGES = {
    "gguf": ("__init__", "constants", "gguf_reader", "quants"),
    "diskcache": ("__init__",),
}
"""vLLM 0.18 and older."""


def make(folder: Path, version: str) -> Path:
    """A folder for the path: the packages, and metadata that say `cpu`, by which vLLM chooses its platform."""
    for package, modules in PACKAGES.items():
        (folder / package).mkdir(parents=True, exist_ok=True)
        for module in modules:
            (folder / package / f"{module}.py").write_text(_ANYTHING)
    info = folder / f"vllm-{version}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(_METADATA.format(version=version))
    return folder
