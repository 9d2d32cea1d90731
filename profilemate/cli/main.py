"""The `profilemate` command: finds the command's module, runs it, and turns errors into one sentence."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from profilemate import __version__
from profilemate.cli.open_files import allow_many
from profilemate.session.errors import SessionError
from profilemate.session.records import printable

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class Command(NamedTuple):
    """A command lives in profilemate/cli/<name>.py.

    The module has `add_arguments(parser)` and `run(arguments) -> int`, and may have EPILOG with an example.
    """

    name: str
    help: str

    @property
    def module(self) -> str:
        """Where it is."""
        return f"profilemate.cli.{self.name}"

    @property
    def is_there(self) -> bool:
        """Whether this installation has it."""
        return importlib.util.find_spec(self.module) is not None


COMMANDS = (
    Command("run", "run a command with profiling on, then export and print a short summary"),
    Command("export", "write the files of a session, or another format"),
    Command("summary", "show what a session recorded"),
    Command("report", "one HTML page with everything that a session shows"),
    Command("advise", "which flag to change, to what, why, and what it should bring"),
    Command("compare", "two or more sessions side by side, and whether they differ beyond the noise"),
    Command("plot", "one figure of a session as a picture"),
    Command("list", "the sessions of a folder"),
    Command("show", "one session: processes, files, rows, health"),
    Command("merge", "join the sessions of several hosts"),
    Command("fleet", "many sessions as a Parquet data set, and questions about all of them"),
    Command("prune", "remove old sessions"),
    Command("doctor", "check whether ProfileMate can work here, and why not"),
)


def top_parser() -> argparse.ArgumentParser:
    """Knows the commands' names only; a command's own module is loaded when it is called."""
    parser = argparse.ArgumentParser(
        prog="profilemate",
        description="ProfileMate: what a vLLM server did with its CUDA graphs and its KV cache.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {command.name:<10} {command.help}" for command in COMMANDS if command.is_there),
                "",
                "`profilemate COMMAND --help` explains one; for instance: profilemate summary latest",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"profilemate {__version__}")
    parser.add_argument("command", metavar="COMMAND")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="arguments of the command")
    return parser


def command_parser(command: Command, module: Any) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = argparse.ArgumentParser(
        prog=f"profilemate {command.name}",
        description=(module.__doc__ or command.help).strip(),
        epilog=getattr(module, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failure, 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # names that its encoding does not have
            stream.reconfigure(errors="backslashreplace")
    if not arguments:
        top_parser().print_help(sys.stderr)
        return BAD_INPUT
    if arguments[0].startswith("-"):
        top_parser().parse_args(arguments)
    command = {known.name: known for known in COMMANDS}.get(arguments[0])
    if command is None or not command.is_there:
        there = ", ".join(known.name for known in COMMANDS if known.is_there)
        return complain(f"there is no command {arguments[0]!r}; there are {there}", BAD_INPUT)
    module = import_module(command.module)
    parsed = command_parser(command, module).parse_args(arguments[1:])
    if command.name != "run":  # its limits are those of the server that it starts
        allow_many()
    return guarded(module, parsed)


def guarded(module: Any, parsed: argparse.Namespace) -> int:
    """Run a command; what the user can act on becomes a sentence, and a closed pipe is no error of theirs."""
    try:
        code = int(module.run(parsed) or 0)
        sys.stdout.flush()
    except SessionError as error:
        return complain(str(error), BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def complain(sentence: str, code: int) -> int:
    """One sentence on stderr."""
    sys.stderr.write(f"profilemate: {printable(sentence)}\n")
    return code
