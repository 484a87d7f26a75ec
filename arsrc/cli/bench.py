"""`arsrc bench`: measure how fast this machine reads files."""

import argparse

SUMMARY = "measure how fast this machine reads files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, glob, sharded set or slice, as in a config")


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    del options
    return 0
