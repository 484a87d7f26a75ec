"""`arsrc verify`: reads every record by array_record's reader, which verifies hashes, and lists what is damaged.

With `--json` one object is printed, of these keys: `num_files` and `num_records` that were looked at; `bad_files`, a
list of `{path, what}`; `bad_records`, a list of `{path, positions, record_ids, what}`, where both numbers are ranges
`[start, stop]`, the second not among them; `exclude`, a list of such ranges of record ids. Record ids are those of a
config without the bad files.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from arsrc._host.machine import progress
from arsrc._host.readers.verifying import BadRecords, Verification, Verified
from arsrc._host.storage import paths
from arsrc.amounts import counted
from arsrc.cli.arguments import add_json, add_paths
from arsrc.cli.tables import write_json, write_line, write_table

SUMMARY = "read every record, and list what is damaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_paths(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print what is damaged; return 0 where nothing is, else 1."""
    verification = Verification(paths.expand(paths.normalize(options.paths)))
    with progress.showing("verify", verification.num_records) as advance:
        found = verification.read(advance)
    if options.json:
        write_json(_as_json(found))
    else:
        _write(found)
    return 1 if found.bad_files or found.bad_records else 0


def exclude_text(bad: Sequence[BadRecords]) -> str:
    """Return records as the field `exclude` of a config takes them."""
    return f"exclude=[{', '.join(_range_text(*one) for one in _ranges(bad))}]"


def _ranges(bad: Sequence[BadRecords]) -> list[tuple[int, int]]:
    """Return the ids of records as ranges, neighbours together."""
    ranges = list[tuple[int, int]]()
    for one in bad:
        start, stop = one.first_id, one.stop_id
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, stop))
    return ranges


def _write(found: Verified) -> None:
    num_bad = sum(one.stop - one.start for one in found.bad_records)
    looked_at = f"{counted(_num_records(found), 'record')} of {counted(_num_files(found), 'file')}"
    if not found.bad_files and not num_bad:
        write_line(f"{looked_at}: all are good")
        return
    if found.bad_files:
        write_line(f"{counted(len(found.bad_files), 'file')} cannot be read:")
        write_table(("file", "what is wrong"), found.bad_files)
        write_line()
    if found.slices:
        of_these = " that can" if found.bad_files else ""
        write_line(f"{looked_at}{of_these}: {num_bad:,} {'is' if num_bad == 1 else 'are'} bad")
    if num_bad:
        columns = ("file", "position", "record id", "what is wrong")
        rows = [
            (one.path, _range_text(one.start, one.stop), _range_text(one.first_id, one.stop_id), one.what)
            for one in found.bad_records
        ]
        write_table(columns, rows)
        write_line()
        write_line(exclude_text(found.bad_records))
    if found.bad_files:
        write_line("Leave the files that cannot be read out of paths: record ids count the others alone.")


def _range_text(start: int, stop: int) -> str:
    """Return a range as `exclude` takes it."""
    return str(start) if stop == start + 1 else f"({start}, {stop})"


def _num_records(found: Verified) -> int:
    return sum(piece.num_records for piece in found.slices)


def _num_files(found: Verified) -> int:
    return len({piece.path for piece in found.slices})


def _as_json(found: Verified) -> dict[str, Any]:
    return {
        "num_files": len({piece.path for piece in found.slices} | {one.path for one in found.bad_files}),
        "num_records": _num_records(found),
        "bad_files": [one._asdict() for one in found.bad_files],
        "bad_records": [
            {
                "path": one.path,
                "positions": [one.start, one.stop],
                "record_ids": [one.first_id, one.stop_id],
                "what": one.what,
            }
            for one in found.bad_records
        ],
        "exclude": [list(one) for one in _ranges(found.bad_records)],
    }
