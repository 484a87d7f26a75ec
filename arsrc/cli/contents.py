"""What all inputs hold together, whatever their format."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from arsrc._host.storage.paths import FileSlice, expand, normalize
from arsrc.cli.guess import Guess
from arsrc.cli.inputs import array_record, formats, json_lines, tfrecord, web_dataset
from arsrc.cli.inputs.npz import Arrays
from arsrc.cli.inputs.parquet import Table
from arsrc.cli.seen import Seen
from arsrc.errors import ArsrcValueError

T = TypeVar("T")

_STREAMS: dict[str, Callable[[str], Iterator[list[bytes]]]] = {
    formats.TFRECORD: tfrecord.read,
    formats.JSONL: json_lines.read,
    formats.WEBDATASET: web_dataset.read,
}


@dataclasses.dataclass(frozen=True)
class Contents:
    """The records of some files.

    Attributes:
        format: Of all of them.
        num_records: How many there are; None: only reading them tells.
        counted: Begins to read them, from the first one on, some at a time, just to count them.
        pieces: Begins to read them, and takes note of what goes by.
        guess: Says, when they have been read, by which codec they are read from ArrayRecord files.
    """

    format: str
    num_records: int | None
    counted: Callable[[], Iterator[list[bytes]]]
    pieces: Callable[[], Iterator[list[bytes]]]
    guess: Callable[[], Guess]


def contents(inputs: Sequence[str], given: str | None) -> Contents:
    """Return what the files hold that paths, globs and sets mean, in the order of a config's `paths`.

    Args:
        inputs: The paths. Files of ArrayRecord may be slices.
        given: Their format; None: it is looked for.

    Raises:
        ArsrcFileNotFoundError: A path matches nothing.
        ArsrcReadError: A file cannot be read.
        ArsrcValueError: Files have several formats, or none that is known; or a slice is of no ArrayRecord file.
    """
    pieces = expand(normalize(inputs))
    found = given or _common_format([piece.path for piece in pieces])
    if found == formats.ARRAY_RECORD:
        return _seen(found, array_record.count(pieces), array_record.read, pieces)
    paths = [_whole(piece) for piece in pieces]
    if found in _STREAMS:
        return _seen(found, None, _STREAMS[found], paths)
    rows = Table(paths, Seen) if found == formats.PARQUET else Arrays(paths)
    return Contents(found, rows.num_records, lambda: iter(rows), lambda: iter(rows), lambda: Guess(str(rows.codec), []))


def _seen(
    found: str, num_records: int | None, read: Callable[[T], Iterator[list[bytes]]], files: Sequence[T]
) -> Contents:
    """Return what files hold whose codec is guessed from the records that go by."""
    seen = Seen()
    chained = lambda: itertools.chain.from_iterable(map(read, files))  # noqa: E731
    return Contents(found, num_records, chained, lambda: seen.each(chained()), seen.guess)


def _common_format(paths: Iterable[str]) -> str:
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(formats.format_of(path), path)
    if len(first) > 1:
        fix = "Convert them one by one: a data set has records of one kind."
        raise ArsrcValueError("convert", "the inputs have several formats", fix, first_of_each=first)
    return next(iter(first))


def _whole(piece: FileSlice) -> str:
    if piece.start or piece.stop is not None:
        fix = "Convert all of it, and read a slice of what is written."
        raise ArsrcValueError("convert", "only ArrayRecord files can be cut into slices", fix, path=str(piece))
    return piece.path
