"""The records of all files of a config as one numbered sequence."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import FileIndex, index_files
from arsrc._host.format.fingerprint import content_sample
from arsrc._host.format.numbering import Found, Numbering
from arsrc._host.format.record_index import Located
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers.mapped import MappedFiles
from arsrc._host.readers.official import ReaderPool, ReadFailure
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.stamps import FileStamp, changed, closed
from arsrc.errors import ArsrcReadError, ArsrcValueError
from arsrc.paths import FileSlice
from arsrc.record_batch import RecordBatch

MAX_RECORDS = 2**32 - 1
_TOGETHER = 32  # files that are indexed together
_HASH_SAMPLES = 256  # chunks looked at over the whole data set


class DataSet:
    """Files opened, counted and checked; reads records by id.

    Files that can be mapped are read from one map of them all; the others by array_record's reader.

    Attributes:
        slices: The files with their record ranges, ends filled in.
        sizes: i64[num_files], records of each slice.
        num_records: Records in all.
        copier: Threads for large copies.
        is_grouped: Whether there are files of which a record cannot be read without decoding its neighbours.
    """

    def __init__(
        self,
        slices: Sequence[FileSlice],
        *,
        checksum: str,
        max_open_files: int,
        random_access: bool,
        buffers: BufferPool,
    ) -> None:
        """Open files.

        Args:
            slices: The files, in the order in which their records are numbered.
            checksum: "always" reads all of them with array_record's reader, which checks hashes.
            max_open_files: Most files that are kept open, beside those that are mapped.
            random_access: Whether records will be read in random order.
            buffers: Where large batches come from.
        """
        self._pool = ReaderPool(max_open_files)
        self.copier = Copier()
        self._map_files = checksum == "auto"
        paths = list(dict.fromkeys(piece.path for piece in slices))
        some = [paths[first : first + _TOGETHER] for first in range(0, len(paths), _TOGETHER)]
        opened = dict(zip(paths, itertools.chain.from_iterable(on_threads(self._open, some)), strict=True))
        self.slices = [piece.within(opened[piece.path].num_records) for piece in slices]
        self.sizes = np.array([piece.num_records for piece in self.slices], np.int64)
        self.num_records = int(self.sizes.sum())
        if not 0 < self.num_records <= MAX_RECORDS:
            what = f"the files hold {'more than 2**32 - 1' if self.num_records else 'no'} records"
            fix = "Choose other files or slices."
            counts = {"num_records": self.num_records, "num_files": len(slices)}
            raise ArsrcValueError("paths", what, fix, **counts)
        self._stamps = {path: file.stamp for path, file in opened.items()}
        self._numbering = Numbering(self.slices)
        found = {piece.path: opened[piece.path].index for piece in self._numbering.slices}
        indices = {path: index for path, index in found.items() if index is not None}
        area = AddressRange.of_files({index.path: index.stamp for index in indices.values()}, random_access)
        self._mapped = None
        if area is not None:
            self._mapped = MappedFiles(area, self._numbering, indices, max_open_files, buffers, self.copier)
        # bool[slices with records]
        self._is_mapped = np.array([area is not None and piece.path in indices for piece in self._numbering.slices])
        self.is_grouped = not self._is_mapped.all()
        self._is_closed = False

    def _open(self, paths: Sequence[str]) -> "list[_File]":
        indices = index_files(paths) if self._map_files else [None] * len(paths)
        return [
            self._counted(path) if i is None else _File(i.num_records, i.stamp, i)
            for path, i in zip(paths, indices, strict=True)
        ]

    def _counted(self, path: str) -> "_File":
        """Let array_record's reader count the records of a file."""
        stamp = FileStamp.of(os.stat(path))
        return _File(self._pool.reader(path, stamp).num_records(), stamp, None)

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        slices, positions = self._numbering.find(np.array([record_id]))
        return self._numbering.slices[slices[0]].path, int(positions[0])

    def read(self, record_ids: NDArray[np.int64]) -> RecordBatch:
        """Return the records with these ids, in this order; repeats are read once each time.

        Raises:
            ArsrcIndexError: An id lies outside.
            ArsrcReadError: A file cannot be read or changed since it was opened, or the files were closed.
        """
        if (located := self.locate(record_ids)) is not None:
            return self.copy(located)
        found = self._numbering.find(record_ids)
        mapped = self._is_mapped[found.slices]
        records: list[bytes] = [b""] * len(record_ids)
        if self._mapped is not None and mapped.any():
            rows = np.flatnonzero(mapped)
            batch = self._mapped.copy(self._mapped.locate(found.at(rows)))
            for number, row in enumerate(rows.tolist()):
                records[row] = batch[number]
        for row, record in self._read_by_reader(found, np.flatnonzero(~mapped)):
            records[row] = record
        return RecordBatch.from_records(records)

    def locate(self, record_ids: NDArray[np.int64]) -> Located | None:
        """Return where records lie, to be copied at any later time; None: they cannot be copied, only read.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        if self._mapped is None or self.is_grouped:
            return None
        return self._mapped.locate(self._numbering.find(record_ids))

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return the records that `locate` found.

        Args:
            located: Where they lie.
            out: u8[at least all their bytes], contiguous, to write into.

        Raises:
            ArsrcReadError: A file changed since it was opened, or the files were closed.
        """
        assert self._mapped is not None
        return self._mapped.copy(located, out)

    def _read_by_reader(self, found: Found, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        """Yield `(row, record)` for some rows, with one read per file."""
        rows = rows[np.argsort(found.slices[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(found.slices[rows])) + 1
        for part in np.split(rows, cuts) if len(rows) else ():
            if self._is_closed:
                raise closed()
            wanted = found.at(part)
            path = self._numbering.slices[wanted.slices[0]].path
            try:
                records = self._pool.read(path, wanted.positions.tolist(), self._stamps[path])
            except ArsrcReadError as error:  # the file cannot be opened again
                raise error.naming(record_ids=_few(self._numbering.ids(wanted))) from error
            except ReadFailure as error:
                ids = self._numbering.ids(Found(wanted.slices[:1], np.array(error.positions)))
                where = {"path": path, "positions": _few(error.positions), "record_ids": _few(ids)}
                raise ArsrcReadError("read", error.what, error.fix, **where) from error
            yield from zip(part.tolist(), records, strict=True)

    def is_current(self) -> bool:
        """Whether all paths still lead to the files that were opened, unchanged."""
        return all(FileStamp.at(path) == stamp for path, stamp in self._stamps.items())

    def content_hash(self) -> str:
        """Return a hash of what the slices hold, from kilobytes of their files; the same wherever they lie.

        Raises:
            ArsrcReadError: A file cannot be read, or is no longer what was opened.
        """
        samples = max(1, _HASH_SAMPLES // len(self.slices))
        paths = list(self._stamps)
        contents = dict(zip(paths, on_threads(lambda path: content_sample(path, samples), paths), strict=True))
        for path, stamp in self._stamps.items():  # afterwards: what was sampled is what was opened
            if (now := FileStamp.of(os.stat(path))) != stamp:
                raise changed(path, stamp, now)
        digest = hashlib.sha256()
        for piece in self.slices:
            digest.update(contents[piece.path] + f"{piece.start}:{piece.stop};".encode())
        return digest.hexdigest()[:32]

    def stamps(self) -> str:
        """Return sizes and times of change of the files: what `content_hash` may not see, these do."""
        return ",".join(f"{stamp.num_bytes}:{stamp.mtime_ns}" for stamp in self._stamps.values())

    def close(self) -> None:
        """Let go of all files; reads of a file that are under way end well, later ones fail."""
        self._is_closed = True
        self._pool.close()
        if self._mapped is not None:
            self._mapped.close()
        self.copier.close()


@dataclasses.dataclass(frozen=True)
class _File:
    """What opening a file has found; `index` None: only array_record's reader can read it."""

    num_records: int
    stamp: FileStamp
    index: FileIndex | None


def _few(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return head if len(numbers) <= 8 else f"{head}, ... ({len(numbers)} in all)"
