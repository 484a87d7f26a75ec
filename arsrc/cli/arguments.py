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
    """Return a number of things; less than none is an error."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)
