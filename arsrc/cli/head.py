"""`arsrc head`: the first records, as a person reads them, or as they are."""

import argparse

import numpy as np

from arsrc.amounts import in_bytes
from arsrc.cli import kinds
from arsrc.cli.arguments import add_paths, whole_number
from arsrc.cli.kinds import kind_of
from arsrc.cli.shown import described, feature_row, lines_of
from arsrc.cli.tables import write_bytes, write_error, write_line, write_table
from arsrc.errors import ArsrcReadError
from arsrc.open_paths import data_set_of

SUMMARY = "print the first records"

_INDENT = "  "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_paths(parser)
    parser.add_argument(
        "-n", type=whole_number, default=3, dest="num_records", metavar="N", help="how many; by default 3"
    )
    parser.add_argument("--raw", action="store_true", help="write the bytes of the records, and nothing else")


def run(options: argparse.Namespace) -> int:
    """Print records; return 0, or 1 where one cannot be read."""
    data_set = data_set_of(options.paths)
    code = 0
    for record_id in range(min(options.num_records, data_set.num_records)):
        try:
            record = data_set.read(np.array([record_id])).records[0]
        except ArsrcReadError as error:
            if error.position is None:  # the whole file
                raise
            write_error(str(error).removeprefix("[arsrc] "))
            code = 1
            continue
        if options.raw:
            write_bytes(record)
        else:
            _write(record_id, record)
    return code


def _write(record_id: int, record: bytes) -> None:
    kind = kind_of(record)
    write_line(f"record {record_id}: {described(kind)}, {in_bytes(len(record))}")
    if kind.name == kinds.EXAMPLE:
        write_table(("feature", "kind", "values", "first"), [feature_row(*one) for one in kind.value.items()], _INDENT)
    for line in () if kind.name == kinds.EXAMPLE else lines_of(record, kind):
        write_line(_INDENT + line)
