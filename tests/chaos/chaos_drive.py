"""Drive vLLM's own scheduler through every case of chaos.

chaos_drive.py OUT.json [driver arguments]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver"), str(ROOT / "tests" / "support" / "sabotage")]

UNMEASURED = ("loop_cpu_s", "loop_wall_s")


def main() -> None:
    """Run every case and write the results."""
    import all_cases
    import drive

    out, arguments = Path(sys.argv[1]), sys.argv[2:]
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

    def work() -> dict[str, Any]:
        summary, _ = drive.run(drive.parse(arguments))
        return {name: value for name, value in summary.items() if name not in UNMEASURED}

    out.write_text(json.dumps(all_cases.run_all(work)))


if __name__ == "__main__":
    main()
