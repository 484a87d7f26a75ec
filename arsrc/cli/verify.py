"""`arsrc verify`: read every record, and list what is damaged."""

import argparse

SUMMARY = "read every record, and list what is damaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, glob, sharded set or slice, as in a config")


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    del options
    return 0
