"""Every record of some files read by array_record's reader, which verifies hashes; what is bad is listed.

Opening a file checks its footer; each chunk is compared with what that says of it. Some megabytes are read at a time,
or one chunk, and let go of at once.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from arsrc._host.format.chunk_list import ChunkList
from arsrc._host.machine.bisection import Bisection
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers.official import ReaderPool, ReadFailure
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.set_lock import check_whole
from arsrc._host.storage.stamps import FileStamp
from arsrc.errors import ArsrcError, ArsrcReadError

_SLAB_BYTES = 4 * 2**20
_BYTES_BESIDE = 64  # that a record takes beside its own
_MOST_OPEN = 64


class BadRecords(NamedTuple):
    """Records of one file, side by side, that are bad for one reason.

    Attributes:
        path: The file.
        start: Position of the first in it.
        stop: The position behind the last.
        first_id: Number of the first, counting the files that can be read alone.
        what: What is wrong.
    """

    path: str
    start: int
    stop: int
    first_id: int
    what: str

    @property
    def stop_id(self) -> int:
        """Number behind that of the last."""
        return self.first_id + self.stop - self.start

    def is_followed_by(self, other: "BadRecords") -> bool:
        """Whether other records stand right behind these, and are bad for the same reason."""
        return (self.path, self.stop, self.stop_id, self.what) == (other.path, other.start, other.first_id, other.what)


class BadFile(NamedTuple):
    """A file that cannot be read as a whole, and why."""

    path: str
    what: str


class Verified(NamedTuple):
    """What was found.

    Attributes:
        slices: Those of the files that can be read, ends filled in.
        bad_files: The others, such as were changed meanwhile among them.
        bad_records: In the order of their numbers.
    """

    slices: list[FileSlice]
    bad_files: list[BadFile]
    bad_records: list[BadRecords]


class _Open(NamedTuple):
    """A slice of a file that was opened: its number among these, its stamp, and its chunks."""

    piece: FileSlice
    number: int
    stamp: FileStamp
    chunks: ChunkList


class _Part(NamedTuple):
    """Some records of a slice: the positions `[start, stop)`, of so many bytes."""

    opened: _Open
    start: int
    stop: int
    num_bytes: int


class _Bad(NamedTuple):
    """The records at positions `[start, stop)` of a slice's file, and what is wrong with them."""

    start: int
    stop: int
    what: str


class Verification:
    """The reading of all records of slices of files.

    Args:
        slices: In the order in which their records are numbered.

    Attributes:
        num_records: Records in all, of the files that can be opened.

    Raises:
        ArsrcReadError: A set of shards is being written.
    """

    def __init__(self, slices: Sequence[FileSlice]) -> None:
        self._pool = ReaderPool(_MOST_OPEN)
        self._large = threading.Lock()
        check_whole([piece.path for piece in slices])
        self._opened: list[_Open] = []
        self._bad_files: list[BadFile] = []
        self.num_records = 0
        for found in on_threads(self._open, slices):
            if isinstance(found, BadFile):
                self._bad_files.append(found)
            else:
                self._opened.append(found._replace(number=len(self._opened)))
                self.num_records += found.piece.num_records

    def read(self, advance: Callable[[int], None]) -> Verified:
        """Read all, on several threads; `advance` is told of numbers of records that were read."""

        def read(part: _Part) -> list[_Bad] | BadFile:
            with self._large if part.num_bytes > 2 * _SLAB_BYTES else contextlib.nullcontext():  # one at a time
                found = self._read(part)
            advance(part.stop - part.start)
            return found

        parts = [part for opened in self._opened for part in _parts(opened)]
        found = on_threads(read, parts)
        failed = [one for one in found if isinstance(one, BadFile)]
        bad_files = list(dict.fromkeys(self._bad_files + failed))
        gone = {one.path for one in failed}
        slices, first_ids, num_records = list[FileSlice](), dict[int, int](), 0
        for opened in self._opened:  # only now it is known which of them count
            if opened.piece.path not in gone:
                slices.append(opened.piece)
                first_ids[opened.number] = num_records
                num_records += opened.piece.num_records
        bad_records = list[BadRecords]()
        for part, bad in zip(parts, found, strict=True):
            piece, number, *_ = part.opened
            if number in first_ids and not isinstance(bad, BadFile):
                before = first_ids[number] - piece.start
                bad_records += [BadRecords(piece.path, start, stop, before + start, what) for start, stop, what in bad]
        return Verified(slices, bad_files, _joined(bad_records))

    def _open(self, piece: FileSlice) -> _Open | BadFile:
        try:
            stamp = FileStamp.there(piece.path)
            chunks = self._pool.reader(piece.path, stamp).chunks
            return _Open(piece.within(chunks.num_records), 0, stamp, chunks)
        except ArsrcError as error:
            return BadFile(piece.path, error.what)

    def _read(self, part: _Part) -> list[_Bad] | BadFile:
        """Return what is bad of some records; each group of them is good or bad as a whole."""
        (piece, _, stamp, chunks), start, stop, _ = part

        def read(first: int, last: int) -> None:
            self._pool.read(piece.path, range(start + first, start + last), stamp)

        bad = []
        try:
            for rows, done in Bisection().parts(np.arange(start, stop) // chunks.group_size, read):
                if isinstance(done, ReadFailure):
                    bad.append(_Bad(start + rows.start, start + rows.stop, done.what))
        except ArsrcReadError as error:  # of the whole file
            return BadFile(piece.path, error.what)
        return bad


def _parts(opened: _Open) -> Iterator[_Part]:
    """Yield the records of a slice, some whole chunks at a time, of a bounded number of bytes or of one chunk."""
    (start, stop), size = (opened.piece.start, opened.piece.num_records + opened.piece.start), opened.chunks.group_size
    if start == stop:
        return
    first, last = start // size, -(-stop // size)
    ends = np.cumsum(opened.chunks.decoded_sizes[first:last].astype(np.int64) + _BYTES_BESIDE * size)
    cuts = np.append(np.flatnonzero(np.diff(ends // _SLAB_BYTES)), last - first - 1)  # the last chunk of each part
    num_bytes = np.diff(ends[cuts], prepend=0).tolist()
    for (begin, end), count in zip(itertools.pairwise([0, *(cuts + 1).tolist()]), num_bytes, strict=True):
        yield _Part(opened, max(start, (first + begin) * size), min(stop, (first + end) * size), count)


def _joined(bad: Sequence[BadRecords]) -> list[BadRecords]:
    """Return bad records with neighbours of one reason together."""
    joined = list[BadRecords]()
    for one in bad:
        if joined and joined[-1].is_followed_by(one):
            one = joined.pop()._replace(stop=one.stop)
        joined.append(one)
    return joined
