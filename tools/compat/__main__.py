"""Check ProfileMate against the Python files of many vLLM versions, and write docs/compatibility.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOOLS), str(TOOLS.parent)]

from compat import check, page, record, signatures, versions  # noqa: E402

EPILOG = """Wheels are downloaded once, some 430 MB each, and only their Python files are kept, 30 to 100 MB a version.

exit code: 0; 1 where a version's counts differ from the truth or a hook does not fit; 2 where a wheel is not to be had

examples:
  python tools/compat
      all versions, half a minute each on a quiet machine; writes docs/compatibility.md
  python tools/compat --only 0.33.0,0.32.0 --no-page
  python tools/compat --ci
      the oldest, the newest and three between; nothing is written
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(
        prog="tools/compat", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=_versions, default=versions.VERSIONS, metavar="VERSIONS", help="some of the versions, by commas")
    add("--ci", dest="only", action="store_const", const=versions.IN_CI, help="those that CI runs; implies --no-page")
    add("--no-page", action="store_true", help="write nothing into the repository")
    add("--no-run", action="store_true", help="signatures alone")
    add("--cache", type=Path, default=home / "profilemate" / "vllm", help="where the files are kept (%(default)s)")
    options = parser.parse_args(argv)
    options.no_page = options.no_page or options.only is versions.IN_CI
    return options


def _versions(text: str) -> tuple[str, ...]:
    wanted = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in wanted if word not in versions.VERSIONS]
    if unknown or not wanted:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is none of {', '.join(versions.VERSIONS)}")
    return wanted


def check_version(version: str, options: argparse.Namespace) -> list[str]:
    """Sentences about what is wrong with a version. Raises NotToBeHadError."""
    files = versions.files_of(version, options.cache)
    found = signatures.read_version(files, check.targets())
    wrong = [
        f"{hook.name}: {reason}"
        for hook in check.vllm_hooks()
        for state, reason in [check.static_fit(hook, found)]
        if state == check.NOT_FITTING
    ]
    if not options.no_page:
        record.keep_signatures(version, found)
    if options.no_run:
        return wrong
    driven = check.drive(version, files)
    if not options.no_page:
        record.keep_driven(version, driven)
    return [*wrong, *driven.wrong, *check.disagreements(found, driven.fits)]


def main(argv: Sequence[str] | None = None) -> int:
    """Check each version in turn."""
    options = parse(argv)
    code = 0
    for number, version in enumerate(options.only, 1):
        began = time.monotonic()
        try:
            wrong = check_version(version, options)
        except versions.NotToBeHadError as error:
            print(f"vLLM {version}: {error}", file=sys.stderr)
            return 2
        verdict = "works" if not wrong else "\n    ".join(["differs:", *wrong])
        print(
            f"[{number}/{len(options.only)}] vLLM {version}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True
        )
        code = code or int(bool(wrong))
    if not options.no_page:
        record.PAGE.write_text(page.render(record.load(signatures.SIGNATURES), record.load(record.DRIVEN)))
        print(f"written: {record.PAGE}")
    return code


if __name__ == "__main__":
    sys.exit(main())
