"""What can be asked from a shell: the command line, `python -m arsrc` and the script `arsrc`.

Each command is a module: `add_arguments(parser)` says what it takes, `run(options)` does it and returns the exit code.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

import jax

import arsrc
from arsrc.cli import bench, convert, head, info, verify
from arsrc.cli.tables import write_error
from arsrc.errors import ArsrcError, said

FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
"""Exit codes; the last two are those of programs that a signal ends."""


class Command(Protocol):
    """What a module of a command has.

    Attributes:
        SUMMARY: What it does, in one line without a full stop.
    """

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say what the command takes."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; return the exit code."""


COMMANDS: Mapping[str, Command] = {"info": info, "head": head, "verify": verify, "bench": bench, "convert": convert}
"""The commands by their names, in the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What follows the name of the program; None: as the process was called.

    Returns:
        The exit code: 0, 1 where something is wrong, 2 where the command is used wrongly, 130 after an interrupt, and
        141 where nobody reads the output any more.
    """
    if sys.stdout is None:  # as Python does where the process was started without
        write_error("standard output is closed")
        return FAILED
    try:
        options = _parser().parse_args(argv)
        code = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return code
    except SystemExit as error:  # of argparse
        return error.code if isinstance(error.code, int) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # else the interpreter would try again at its end, and complain
            sys.stdout.close()
        return BROKEN_PIPE
    except ArsrcError as error:
        write_error(str(error).removeprefix("[arsrc] "))
    except (OSError, MemoryError) as error:
        write_error(said(error))
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # what becomes of an error inside a callback
        _, is_ours, text = str(error).partition("[arsrc] ")
        if str(error).rstrip().rpartition("\n")[2].startswith("KeyboardInterrupt"):
            return INTERRUPTED
        if not is_ours:
            raise
        write_error(text.rstrip())
    return FAILED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one form with all other errors."""

    def error(self, message: str) -> NoReturn:
        write_error(f"{message}. See {self.prog} --help.")
        self.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    about = "Look at ArrayRecord files, at how fast they are read, and make them from others."
    parser = _Parser("arsrc", description=about)
    parser.add_argument("--version", action="version", version=f"arsrc {arsrc.__version__}")
    commands: Any = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.SUMMARY, description=command.SUMMARY[:1].upper() + command.SUMMARY[1:]
        )
        command.add_arguments(sub)
    return parser
