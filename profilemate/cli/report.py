"""One HTML page with everything that a session shows: whether to trust it, advice, the server, its requests.

The page is a single file that loads nothing, for a browser with or without a network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.report.sections import SECTIONS
from profilemate.session.errors import SessionError
from profilemate.session.find import LATEST, find_session

EPILOG = f"""examples:
  profilemate report                                  of the latest session, as report.html beside its files
  profilemate report /tmp/vllm_profiling/session_20250101_120000 -o run-a.html
  profilemate report latest --open --sections advice,kv,graphs

sections: {", ".join(SECTIONS[:7])},
  {", ".join(SECTIONS[7:])}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write the page instead")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument(
        "--sections", type=_names, default=(), metavar="NAMES", help="only these, separated by commas (see below)"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print where it is; 1 where ProfileMate failed to draw a figure or to work out an advice."""
    from profilemate.frames.session import Session
    from profilemate.report.build import chosen_sections, page_of
    from profilemate.report.render import html_of
    from profilemate.report.write import default_output, write

    chosen_sections(arguments.sections)
    path = find_session(arguments.session, configured_directory())
    output = _output(arguments.output) or default_output(path)
    with Progress("making the report") as progress:
        session = Session(path)
        session.on_read = progress.read
        page = page_of(session, arguments.sections, progress.show)
        progress.show("writing")
        write(output, html_of(page), is_asked_for=arguments.output is not None)
    if arguments.output is None and output.parent != path:
        sys.stderr.write(f"profilemate: {path} cannot be written, so the report is in the current folder\n")
    sys.stdout.write(f"{output}\n")
    for fault in page.faults:
        sys.stderr.write(f"profilemate: {fault}\n")
    if arguments.open:
        _open(output)
    return 1 if page.faults else 0


def _output(given: Path | None) -> Path | None:
    """The file to write. Raises SessionError for a folder, and for a file in a folder that there is not."""
    if given is None:
        return None
    if given.is_dir():
        raise SessionError(f"{given} is a folder; name a file, such as {given / 'report.html'}")
    if not given.parent.is_dir():
        raise SessionError(f"there is no folder {given.parent}")
    return given


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        sys.stderr.write(f"profilemate: no browser could be started; open {path}\n")
