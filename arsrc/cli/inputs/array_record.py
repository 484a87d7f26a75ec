"""ArrayRecord files as an input: their records, in order, all hashes verified."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from arsrc._host.readers.official import ReaderPool, ReadFailure
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp
from arsrc.cli.inputs.damage import damage

_STEP_BYTES = 8 << 20  # of decoded records that are read at once, and at least one chunk


def count(pieces: Sequence[FileSlice]) -> int:
    """Return how many records slices of files hold."""
    total = 0
    for piece in pieces:
        with contextlib.closing(ReaderPool(1)) as pool:
            total += piece.within(pool.reader(piece.path, FileStamp.there(piece.path)).chunks.num_records).num_records
    return total


def read(piece: FileSlice) -> Iterator[list[bytes]]:
    """Yield the records of a slice of a file, whatever its options, some at a time.

    Raises:
        ArsrcReadError: The file or a record is damaged.
        ArsrcValueError: The slice lies beyond the file's end.
    """
    pool, stamp = ReaderPool(1), FileStamp.there(piece.path)
    try:
        chunks = pool.reader(piece.path, stamp).chunks
        whole = piece.within(chunks.num_records)
        assert whole.stop is not None
        ends = np.cumsum(chunks.decoded_sizes, dtype=np.int64)  # i64[num_chunks], bytes up to and with each
        at = whole.start
        while at < whole.stop:
            first = at // chunks.group_size
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + _STEP_BYTES, "right")))
            stop = min(last * chunks.group_size, whole.stop)
            yield _records(pool, piece.path, range(at, stop), stamp)
            at = stop
    finally:
        pool.close()


def _records(pool: ReaderPool, path: str, positions: range, stamp: FileStamp) -> list[bytes]:
    """Return records; the error where one cannot be read names it."""
    try:
        return pool.read(path, positions, stamp)
    except ReadFailure as failure:
        wrong = failure
    for position in positions:
        try:
            pool.read(path, [position], stamp)
        except ReadFailure as failure:
            fix = "Put a good file in its place, or convert what lies around: file[start:stop]."
            raise damage(path, failure.what, fix, position=position) from failure
    raise damage(path, wrong.what, wrong.fix) from wrong
