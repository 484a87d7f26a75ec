"""The records of all files of a config as one numbered sequence."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.fingerprint import content_sample
from arsrc._host.format.numbering import Found
from arsrc._host.format.record_index import Located
from arsrc._host.machine import slow_reads
from arsrc._host.machine.bisection import Bisection
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers.files import Files, files_of
from arsrc._host.readers.mapped import BadRows, MappedFiles
from arsrc._host.readers.official import ReadFailure
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp, check_same, closed
from arsrc.errors import ArsrcError, ArsrcReadError
from arsrc.record_batch import RecordBatch

_HASH_SAMPLES = 256  # chunks looked at over the whole data set

OnBad: TypeAlias = Callable[[NDArray[np.int64], ArsrcError], None]
"""Told the rows i64[n] of what is bad, and what is wrong with it; may raise that."""


def raise_it(_: NDArray[np.int64], error: ArsrcError) -> None:
    """Let what is bad be an error."""
    raise error


class DataSet:
    """Files opened, counted and checked; reads records by id.

    Files that can be mapped are read from one map of them all; the others by array_record's reader.

    Attributes:
        slices: The files with their record ranges, ends filled in.
        sizes: i64[num_files], records of each slice.
        num_records: Records in all.
        files: What is open of them, and by whom it is read.
        copier: Threads for large copies.
        is_closed: Whether they were closed: nothing can be read any more.
    """

    def __init__(
        self,
        slices: Sequence[FileSlice],
        *,
        checksum: str,
        max_open_files: int,
        random_access: bool,
        buffers: BufferPool,
        limit: float | None = None,
    ) -> None:
        """Open files.

        Args:
            slices: The files, in the order in which their records are numbered.
            checksum: "always" reads all of them with array_record's reader, which checks hashes.
            max_open_files: Most files that are kept open, beside those that are mapped.
            random_access: Whether records will be read in random order.
            buffers: Where large batches come from.
            limit: Most seconds that a read may take, None for any.
        """
        self.copier = Copier()
        self.files = Files(
            slices,
            checksum=checksum,
            max_open_files=max_open_files,
            random_access=random_access,
            buffers=buffers,
            copier=self.copier,
            limit=limit,
        )
        self.slices, self._numbering = self.files.slices, self.files.numbering
        self.sizes = np.array([piece.num_records for piece in self.slices], np.int64)
        self.num_records = self._numbering.num_records
        self.is_closed = False
        self._bisection, self._limit = Bisection(), limit
        self._content_hash: str | None = None

    @property
    def is_grouped(self) -> bool:
        """Whether there are open files of which a record cannot be read without decoding its neighbours."""
        opened = self.files.opened
        return bool((opened.is_open & ~opened.is_mapped).any())

    @property
    def cold_share(self) -> float:
        """Which share of the reads from the map waited for the disk."""
        mapped = self.files.opened.mapped
        return 0.0 if mapped is None else mapped.cold.share

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        slices, positions = self._numbering.find(np.array([record_id]))
        return self._numbering.slices[slices[0]].path, int(positions[0])

    def read(self, record_ids: NDArray[np.int64], on_bad: OnBad = raise_it) -> RecordBatch:
        """Return the records with these ids, in this order; repeats are read once each time.

        Args:
            record_ids: i64[num_rows]
            on_bad: Told of rows that cannot be read, file by file and there by ascending positions; where it raises
                nothing, they are left out.

        Raises:
            ArsrcIndexError: An id lies outside.
            ArsrcReadError: A file cannot be read or changed since it was opened, or the files were closed.
        """
        found = self._numbering.find(record_ids)
        opened = self.files.opened_for(found)
        mapped = opened.is_mapped[found.slices]
        if opened.mapped is not None and mapped.all():
            return self._copy(opened.mapped, opened.mapped.locate(found), None, on_bad)
        records: list[bytes | None] = [None] * len(record_ids)
        if opened.mapped is not None and mapped.any():
            rows = np.flatnonzero(mapped)
            are_good = np.ones(len(rows), bool)

            def tell(some: NDArray[np.int64], error: ArsrcError) -> None:
                on_bad(rows[some], error)
                are_good[some] = False

            batch = self._copy(opened.mapped, opened.mapped.locate(found.at(rows)), None, tell)
            for number, row in enumerate(rows[are_good].tolist()):
                records[row] = batch[number]
        for row, record in self._read_by_reader(found, np.flatnonzero(~mapped), opened.group_sizes, on_bad):
            records[row] = record
        return RecordBatch.from_records([record for record in records if record is not None])

    def num_decoded(self, record_ids: NDArray[np.int64]) -> int:
        """Return how many records a read of these decoded: whole chunks, of files that are not mapped."""
        opened = self.files.opened
        if opened.max_group_size == 1:
            return len(record_ids)
        slices, positions = self._numbering.find(record_ids)
        group_sizes, file_sizes = opened.group_sizes[slices], opened.file_sizes[slices]
        firsts = positions // group_sizes * group_sizes
        _, rows = np.unique(slices * opened.file_sizes.max() + firsts, return_index=True)
        return int(np.minimum(group_sizes, file_sizes - firsts)[rows].sum())

    def locate(self, record_ids: NDArray[np.int64]) -> Located | None:
        """Return where records lie, to be copied at any later time; None: they cannot be copied, only read.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        found = self._numbering.find(record_ids)
        opened = self.files.opened_for(found)
        if opened.mapped is None or not opened.is_mapped[found.slices].all():
            return None
        return opened.mapped.locate(found)

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None, on_bad: OnBad = raise_it) -> RecordBatch:
        """Return the records that `locate` found.

        Args:
            located: Where they lie.
            out: u8[at least all their bytes], contiguous, to write into.
            on_bad: As for `read`.

        Raises:
            ArsrcReadError: A file changed since it was opened, or the files were closed.
        """
        if (mapped := self.files.opened.mapped) is None:
            raise closed()
        return self._copy(mapped, located, out, on_bad)

    def _copy(self, mapped: MappedFiles, located: Located, out: NDArray[np.uint8] | None, on_bad: OnBad) -> RecordBatch:
        """Return the records of rows that are good; those that are not are told of, file by file."""
        try:
            return mapped.copy(located, out)
        except BadRows as error:
            doubtful = error.rows
        # What looks wrong is read by array_record's reader, which looks at the hashes, and says what is wrong.
        found, group_sizes = Found(located.slices, located.positions), self.files.opened.group_sizes
        records: list[bytes | None] = [None] * len(located.starts)
        rows = np.arange(len(records))
        while len(doubtful):
            for row, record in self._read_by_reader(found, rows[doubtful], group_sizes, on_bad):
                records[row] = record
            rows, doubtful = np.delete(rows, doubtful), doubtful[:0]
            try:
                batch = mapped.copy(located.at(rows))
            except BadRows as error:
                doubtful = error.rows
        for number, row in enumerate(rows.tolist()):
            records[row] = batch[number]
        return RecordBatch.from_records([record for record in records if record is not None])

    def _read_by_reader(
        self, found: Found, rows: NDArray[np.int64], group_sizes: NDArray[np.int64], on_bad: OnBad
    ) -> Iterator[tuple[int, bytes]]:
        """Yield `(row, record)` for some rows, with one read per file where none of them is bad."""
        rows = rows[np.lexsort((found.positions[rows], found.slices[rows]))]
        # A group is read as a whole, and good or bad as a whole.
        units = found.slices << 32 | found.positions // group_sizes[found.slices]
        cuts = np.flatnonzero(np.diff(found.slices[rows])) + 1
        for part in np.split(rows, cuts) if len(rows) else ():
            wanted = found.at(part)
            path, ids = self._numbering.slices[wanted.slices[0]].path, self._numbering.ids(wanted)
            read = functools.partial(self._read_file, path, wanted.positions.tolist(), ids)
            for some, records in self._bisection.parts(units[part], read):
                if isinstance(records, list):
                    yield from zip(part[some].tolist(), records, strict=True)
                else:
                    assert isinstance(records, ReadFailure)
                    on_bad(part[some], self._unreadable(records, wanted.at(np.arange(len(part))[some])))

    def _read_file(
        self, path: str, positions: Sequence[int], ids: NDArray[np.int64], first: int, last: int
    ) -> list[bytes]:
        """Return the records at `positions[first:last]` of a file."""
        if self.is_closed:
            raise closed()
        try:
            return self.files.pool.read(path, positions[first:last], self.files.stamps[path])
        except ArsrcReadError as error:  # of the whole file
            raise error.naming(record_ids=_few(ids[first:last])) from error

    def _unreadable(self, failure: ReadFailure, found: Found) -> ArsrcReadError:
        """Return the error for records of one file that cannot be read."""
        path, ids = self._numbering.slices[found.slices[0]].path, self._numbering.ids(found)
        where = {"path": path, "positions": _few(found.positions), "record_ids": _few(ids)}
        error = ArsrcReadError("read", failure.what, failure.fix, **where).at(
            path, int(found.positions[0]), int(ids[0])
        )
        error.__cause__ = failure.__cause__
        return error

    def is_current(self) -> bool:
        """Whether all paths still lead to the files that were opened, unchanged."""

        def look() -> bool:
            stamps = ((FileStamp.at(path), stamp) for path, stamp in self.files.stamps.items())
            return all(now is not None and now.is_untouched(stamp) for now, stamp in stamps)

        return slow_reads.read(lambda: f"looking at {files_of(list(self.files.stamps))}", look, self._limit)

    def content_hash(self) -> str:
        """Return a hash of what the slices hold, from kilobytes of their files; the same wherever they lie.

        Raises:
            ArsrcReadError: A file cannot be read, or is no longer what was opened, when first asked.
        """
        if self._content_hash is None:
            self._content_hash = self._sampled()
        return self._content_hash

    def _sampled(self) -> str:
        samples = max(1, _HASH_SAMPLES // len(self.slices))
        paths = list(self.files.stamps)

        def sample(path: str) -> bytes:
            def read() -> bytes:
                found = content_sample(path, samples)
                check_same(path, self.files.stamps[path])  # afterwards: what was sampled is what was opened
                return found

            return slow_reads.read(lambda: f"samples of {path!r}", read, self._limit)

        contents = dict(zip(paths, on_threads(sample, paths), strict=True))
        digest = hashlib.sha256()
        for piece in self.slices:
            digest.update(contents[piece.path] + f"{piece.start}:{piece.stop};".encode())
        return digest.hexdigest()[:32]

    def stamps(self) -> str:
        """Return sizes and times of change of the files: what `content_hash` may not see, these do.

        Without inodes: a file that was replaced has another `ctime_ns`, and mounted storage numbers its files anew.
        """
        stamps = self.files.stamps.values()
        return ",".join(f"{stamp.num_bytes}:{stamp.mtime_ns}:{stamp.ctime_ns}" for stamp in stamps)

    def close(self) -> None:
        """Let go of all files; reads of a file that are under way end well, later ones fail."""
        self.is_closed = True
        self.files.close()
        self.copier.close()


def _few(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return head if len(numbers) <= 8 else f"{head}, ... ({len(numbers)} in all)"
