"""The records of all files of a config as one numbered sequence."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import FileIndex, file_index
from arsrc._host.format.fingerprint import content_sample
from arsrc._host.format.places import FileRange
from arsrc._host.format.record_index import Located
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.threads import map_paths
from arsrc._host.readers.mapped import MapOptions, open_mapped
from arsrc._host.readers.official import ReaderPool, ReadFailure
from arsrc._host.storage.stamps import FileStamp, changed
from arsrc.errors import ArsrcReadError, ArsrcValueError, message
from arsrc.paths import FileSlice
from arsrc.record_batch import RecordBatch

if TYPE_CHECKING:
    from arsrc.config import ReadOptions

MAX_RECORDS = 2**32 - 1
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

    def __init__(self, files: list[FileSlice], read: "ReadOptions", random_access: bool, buffers: BufferPool) -> None:
        self._pool = ReaderPool(read.max_open_files)
        self.copier = Copier()
        self._map_files = read.checksum == "auto"
        opened = map_paths(self._open, list(dict.fromkeys(piece.path for piece in files)))
        self.slices = [_bounded(piece, opened[piece.path].num_records) for piece in files]
        self.sizes = np.array([piece.num_records for piece in self.slices], np.int64)
        self.num_records = int(self.sizes.sum())
        if not 0 < self.num_records <= MAX_RECORDS:
            what = "more than 2**32 - 1 records" if self.num_records else "no records"
            raise ArsrcValueError(
                message(
                    "paths",
                    f"the files hold {what}",
                    "Choose other files or slices.",
                    num_records=self.num_records,
                    num_files=len(files),
                )
            )
        self._stamps = {path: file.stamp for path, file in opened.items()}
        self._base = np.cumsum(self.sizes) - self.sizes  # i64[num_files], first record id of each
        self._starts = np.array([piece.start for piece in self.slices])
        indices = [opened[piece.path].index for piece in self.slices]
        ranges = [
            FileRange(index, piece.start, piece.stop or 0)
            for index, piece in zip(indices, self.slices, strict=True)
            if index is not None
        ]
        self._mapped = open_mapped(ranges, MapOptions(random_access, buffers, self.copier, self._pool.max_open))
        is_mapped = np.array([index is not None and self._mapped is not None for index in indices])
        self.is_grouped = not is_mapped.all()
        # First number of each mapped slice in the map, i64[num_files]; -1: not mapped.
        in_map = np.cumsum(self.sizes * is_mapped) - self.sizes * is_mapped
        self._in_map = np.where(is_mapped, in_map, -1)

    def _open(self, path: str) -> "_File":
        stamp = FileStamp.of(os.stat(path))
        num_records = self._pool.get(path, stamp).num_records()
        index = file_index(path, num_records) if self._map_files else None
        if index is not None:
            self._pool.drop(path)
        return _File(num_records, stamp, index)

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        file = int(np.searchsorted(self._base, record_id, side="right")) - 1
        return self.slices[file].path, int(record_id - self._base[file] + self._starts[file])

    def read(self, record_ids: NDArray[np.int64]) -> RecordBatch:
        """Return the records with these ids, in this order; repeats are read once each time.

        Raises:
            ArsrcReadError: A file cannot be read or changed since it was opened.
        """
        if (located := self.locate(record_ids)) is not None:
            return self.copy(located)
        files = np.searchsorted(self._base, record_ids, side="right") - 1  # i64[n]
        mapped = self._in_map[files] >= 0
        records: list[bytes] = [b""] * len(record_ids)
        if self._mapped is not None and mapped.any():
            rows = np.flatnonzero(mapped)
            batch = self._mapped.read((record_ids - self._base[files] + self._in_map[files])[rows])
            for number, row in enumerate(rows.tolist()):
                records[row] = batch[number]
        for row, record in self._read_by_reader(record_ids, files, np.flatnonzero(~mapped)):
            records[row] = record
        return RecordBatch.from_records(records)

    def locate(self, record_ids: NDArray[np.int64]) -> Located | None:
        """Return where records lie, to be copied at any later time; None: they cannot be copied, only read.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        return None if self._mapped is None or self.is_grouped else self._mapped.locate(record_ids)

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return the records that `locate` found.

        Args:
            located: Where they lie.
            out: u8[at least all their bytes], contiguous, to write into.

        Raises:
            ArsrcReadError: A file changed since it was opened.
        """
        assert self._mapped is not None
        return self._mapped.copy(located, out)

    def _read_by_reader(
        self, record_ids: NDArray[np.int64], files: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield `(row, record)` for some rows, with one read per file."""
        positions = record_ids - self._base[files] + self._starts[files]
        rows = rows[np.argsort(files[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(files[rows])) + 1
        for part in np.split(rows, cuts) if len(rows) else ():
            path = self.slices[files[part[0]]].path
            try:
                records = self._pool.read(path, positions[part].tolist(), self._stamps[path])
            except ArsrcReadError as error:  # the file cannot be opened again
                raise ArsrcReadError(f"{error} (record ids {_few(record_ids[part].tolist())})") from error
            except ReadFailure as error:
                ids = np.array(error.positions) - self._starts[files[part[0]]] + self._base[files[part[0]]]
                text = message("read", error.what, error.fix, path=path, positions=_few(error.positions))
                raise ArsrcReadError(f"{text} (record ids {_few(ids)})") from error
            yield from zip(part.tolist(), records, strict=True)

    def content_hash(self) -> str:
        """Return a hash of what the slices hold, from kilobytes of their files; the same wherever they lie.

        Raises:
            ArsrcReadError: A file cannot be read, or is no longer what was opened.
        """
        samples = max(1, _HASH_SAMPLES // len(self.slices))
        paths = list(self._stamps)
        contents = map_paths(lambda path: content_sample(path, samples), paths)
        for path, stamp in self._stamps.items():  # afterwards: what was sampled is what was opened
            if (now := FileStamp.of(os.stat(path))) != stamp:
                raise changed(path, stamp, now)
        digest = hashlib.sha256()
        for piece in self.slices:
            digest.update(contents[piece.path] + f"{piece.start}:{piece.stop};".encode())
        return digest.hexdigest()[:32]

    def is_current(self) -> bool:
        """Whether the files are still what was opened."""
        try:
            return all(FileStamp.of(os.stat(path)) == stamp for path, stamp in self._stamps.items())
        except OSError:
            return False

    def stamps(self) -> str:
        """Return sizes and times of change of the files: what `content_hash` may not see, these do."""
        return ",".join(f"{stamp.num_bytes}:{stamp.mtime_ns}" for stamp in self._stamps.values())

    def close(self) -> None:
        """Close all files."""
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


def _bounded(piece: FileSlice, num_records: int) -> FileSlice:
    """Fill in the end of a slice, and check it against the file."""
    stop = num_records if piece.stop is None else piece.stop
    if stop > num_records or piece.start > stop:
        raise ArsrcValueError(
            message(
                "paths",
                f"a slice lies beyond the end of its file, which has {num_records} records",
                "Choose a smaller slice.",
                path=str(piece),
            )
        )
    return FileSlice(piece.path, piece.start, stop)


def _few(numbers: Sequence[int]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return head if len(numbers) <= 8 else f"{head}, ... ({len(numbers)} in all)"
