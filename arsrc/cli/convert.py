"""`arsrc convert`: write ArrayRecord files from files of other formats, or of other options.

With `--json` one object is printed, of these keys, all of which `arsrc info` has too: `files`, those that were
written, a list of `{path, num_bytes, num_records}`; `num_records`, `num_bytes`; `codec`, as Python code, or null, and
`remarks` on it, a list of texts.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from arsrc._host.machine.progress import track
from arsrc._host.storage.file_names import absolute, is_folder, look, shard_sets
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp
from arsrc.amounts import counted, in_bytes
from arsrc.cli.arguments import add_json, whole_number
from arsrc.cli.contents import contents
from arsrc.cli.file_facts import FileSize
from arsrc.cli.guess import Guess
from arsrc.cli.inputs import array_record
from arsrc.cli.inputs.formats import FORMATS, is_array_record
from arsrc.cli.tables import write_json, write_line
from arsrc.codecs.encoding import RecordStream
from arsrc.errors import ArsrcReadError, ArsrcValueError
from arsrc.writing import final_paths, write_stream

SUMMARY = "write ArrayRecord files from files of other formats"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    help_of_inputs = "file, glob or sharded set, in the order in which their records shall come"
    parser.add_argument("inputs", nargs="+", metavar="IN", help=help_of_inputs)
    parser.add_argument("output", metavar="OUT", help="ArrayRecord file to write; of several shards, the common name")
    parser.add_argument("--from", dest="format", choices=FORMATS, help="format of the inputs, if it is not found out")
    parser.add_argument(
        "--num-shards", type=whole_number, default=1, metavar="N", help="number of files, one by default"
    )
    help_of_options = "of array_record's writer; the default, %(default)s, is what is read fastest in random order"
    parser.add_argument("--options", default="group_size:1,uncompressed", help=help_of_options)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    targets = final_paths(options.output, options.num_shards)
    for path in targets:
        _check_output(path, options.overwrite)
    for path in filter(is_folder, options.inputs):
        fix = f"Name its files, by a glob say: '{path.rstrip('/')}/*'."
        raise ArsrcValueError("convert", "an input is a folder", fix, path=path)
    found = contents(options.inputs, options.format)
    num_records = found.num_records
    if num_records is None and len(targets) > 1:  # to be read in order, shards are parts, and parts need a number
        num_records = sum(map(len, track(found.counted(), "counting records", None, None)))
    if num_records == 0:
        raise _nothing()
    pieces = _Pieces(found.pieces(), num_records)
    write_stream(targets, RecordStream(iter(pieces), num_records), options.options)
    if options.json:
        write_json(_as_json(targets, found.guess()))
    else:
        _write(targets, pieces, found.guess())
    return 0


def _check_output(path: str, overwrite: bool) -> None:
    """Refuse to replace what is there: any file unless that was asked for, and one of another format in any case."""
    if look(path) is None:
        return
    if not is_array_record(path):
        what = "the output is there already, and is no ArrayRecord file"
        raise ArsrcValueError("convert", what, "Name another OUT, which comes last.", path=path)
    if not overwrite:
        fix = "Name another OUT, which comes last, or give --overwrite."
        raise ArsrcValueError("convert", "the output is there already", fix, path=path)


class _Pieces:
    """Records on their way, some at a time, counted.

    Attributes:
        num_records: How many went by.
        num_bytes: How many bytes they had.
    """

    def __init__(self, pieces: Iterator[list[bytes]], expected: int | None) -> None:
        self._pieces, self._expected = pieces, expected
        self.num_records = self.num_bytes = 0

    def __iter__(self) -> Iterator[list[bytes]]:
        for piece in self._pieces:
            self.num_records += len(piece)
            self.num_bytes += sum(map(len, piece))
            yield piece
        if not self.num_records:
            raise _nothing()
        if self._expected not in (None, self.num_records):
            what = "the inputs hold another number of records than they say, or were changed meanwhile"
            raise ArsrcReadError("convert", what, expected=self._expected, found=self.num_records)


def _nothing() -> ArsrcValueError:
    return ArsrcValueError("convert", "the inputs hold no records", "A data set needs one.")


def _as_json(targets: Sequence[str], guess: Guess) -> dict[str, Any]:
    paths = [absolute(target, "path") for target in targets]
    files = [FileSize(path, FileStamp.there(path).num_bytes, array_record.count([FileSlice(path)])) for path in paths]
    return {
        "files": [one._asdict() for one in files],
        "num_records": sum(one.num_records for one in files),
        "num_bytes": sum(one.num_bytes for one in files),
        "codec": guess.codec or None,
        "remarks": guess.remarks,
    }


def _write(targets: Sequence[str], pieces: _Pieces, guess: Guess) -> None:
    where = targets[0] if len(targets) == 1 else f"the {len(targets)} files of {next(iter(shard_sets(targets)))}"
    write_line(f"wrote {counted(pieces.num_records, 'record')}, {in_bytes(pieces.num_bytes)} of records, to {where}")
    if guess.codec:
        for line in [*(f"# {remark}" for remark in guess.remarks), *f"codec={guess.codec}".splitlines()]:
            write_line(line)
