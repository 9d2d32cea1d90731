"""Make an environment that is this one plus Ray, so that vLLM's own environment stays as it is.

    install_ray.py FOLDER

Packages of this environment, ProfileMate's entry point among them, are seen through a .pth file. A second one imports
`ray_on_cpu`. So a Ray worker that the overlay's Python runs needs no PYTHONPATH for either.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARKER = "ray-is-installed"


def main() -> None:
    """Nothing is done where it was done before."""
    folder = Path(sys.argv[1])
    if (folder / MARKER).exists():
        return
    venv.create(folder, with_pip=False, clear=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    own = sysconfig.get_path("purelib")
    (packages / "below.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    (packages / "ray_on_cpu.pth").write_text(f"{HERE / 'ray_on_cpu'}\nimport ray_on_cpu\n")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "ray"], check=True)
    (folder / MARKER).write_text("")


if __name__ == "__main__":
    main()
