"""Arguments that several commands take."""

import argparse


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Let a command take `paths`."""
    about = "file, glob, sharded set (name@4) or slice; 'file[100:]' is what begins at record 100"
    parser.add_argument("paths", nargs="+", metavar="PATH", help=about)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command take `json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def whole_number(text: str) -> int:
    """Return a number of things; what is none, or less than none, is an error of argparse."""
    if not text.isdecimal():
        raise refused(f"{text!r} is no whole number from 0 on")
    return int(text)


def refused(what: str) -> argparse.ArgumentTypeError:
    """Return the error that argparse says in these words, in place of the name of a function."""
    return argparse.ArgumentTypeError(what)
