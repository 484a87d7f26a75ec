"""Arguments that several commands take."""

import argparse
from typing import Any

from arsrc.cli.tfds_folder import laid_open


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Let a command take `paths`."""
    about = "file, glob, sharded set (name@4), slice ('file[100:]' begins at record 100), or folder of TFDS"
    parser.add_argument("paths", nargs="+", metavar="PATH", action=_Paths, help=about)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command take `json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


class _Paths(argparse.Action):
    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        setattr(namespace, self.dest, laid_open(values))


def whole_number(text: str) -> int:
    """Return a number of things; what is none, or less than none, is an error of argparse."""
    if not text.isdecimal():
        raise refused(f"{text!r} is no whole number from 0 on")
    return int(text)


def refused(what: str) -> argparse.ArgumentTypeError:
    """Return the error that argparse says in these words, in place of the name of a function."""
    return argparse.ArgumentTypeError(what)
