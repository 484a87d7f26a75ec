"""`arsrc info`: say what files hold, and how to read them."""

import argparse

SUMMARY = "say what files hold, and how to read them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, glob, sharded set or slice, as in a config")


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    del options
    return 0
