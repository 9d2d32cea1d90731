"""One benchmark in a process of its own: `python benchmarks/overhead/child.py NAME SIZE RESULT.json`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from overhead import places, registry, samples  # noqa: E402 - needs the path

if __name__ == "__main__":
    name, size, result = sys.argv[1:]
    places.make_importable()
    samples.write(Path(result), registry.find(name).measure(size))
