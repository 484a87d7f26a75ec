"""The records of all files of a config as one numbered sequence."""

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc._host.files import FileSlice
from arsrc._host.layout import content_sample
from arsrc._host.readers import ReaderPool
from arsrc._host.threads import map_paths
from arsrc.codecs.base import RecordBatch
from arsrc.errors import ArsrcReadError, ArsrcValueError, message

if TYPE_CHECKING:
    from arsrc.config import ReadOptions

MAX_RECORDS = 2**32 - 1
_HASH_SAMPLES = 256  # chunks looked at over the whole data set


class DataSet:
    """Files opened, counted and checked; reads records by id.

    Attributes:
        slices: The files with their record ranges, ends filled in.
        sizes: i64[num_files], records of each slice.
        num_records: Records in all.
    """

    def __init__(self, files: list[FileSlice], read: "ReadOptions", random_access: bool) -> None:
        self._pool = ReaderPool(read.max_open_files)
        paths = list(dict.fromkeys(piece.path for piece in files))
        counted = map_paths(self._count, paths)
        self.num_bytes = {path: num_bytes for path, (_, num_bytes) in counted.items()}
        self.slices = [_bounded(piece, counted[piece.path][0]) for piece in files]
        self.sizes = np.array([piece.stop - piece.start for piece in self.slices if piece.stop is not None])
        self._base = np.cumsum(self.sizes) - self.sizes  # i64[num_files], first record id of each
        self._starts = np.array([piece.start for piece in self.slices])
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

    def _count(self, path: str) -> tuple[int, int]:
        """Return (records, bytes) of a file."""
        num_bytes = os.stat(path).st_size
        return self._pool.get(path).num_records(), num_bytes

    @property
    def is_grouped(self) -> bool:
        """Whether a record cannot be read without decoding its neighbours."""
        return True

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        file = int(np.searchsorted(self._base, record_id, side="right")) - 1
        return self.slices[file].path, int(record_id - self._base[file] + self._starts[file])

    def read(self, record_ids: NDArray[np.int64]) -> RecordBatch:
        """Return the records with these ids, in this order; repeats are read once each time.

        Raises:
            ArsrcReadError: A file cannot be read or changed since it was opened.
        """
        files = np.searchsorted(self._base, record_ids, side="right") - 1  # i64[n]
        positions = record_ids - self._base[files] + self._starts[files]
        records: list[bytes] = [b""] * len(record_ids)
        order = np.argsort(files, kind="stable")
        cuts = np.flatnonzero(np.diff(files[order])) + 1
        for rows in np.split(order, cuts) if len(order) else ():
            path = self.slices[files[rows[0]]].path
            try:
                read = self._pool.read(path, positions[rows].tolist(), self.num_bytes[path])
            except ArsrcReadError as error:
                ids = ", ".join(str(record_id) for record_id in record_ids[rows[:4]])
                raise ArsrcReadError(f"{error} (record ids {ids}{', ...' if len(rows) > 4 else ''})") from error
            for row, record in zip(rows.tolist(), read, strict=True):
                records[row] = record
        return RecordBatch.from_records(records)

    def content_hash(self) -> str:
        """Return a hash of what the slices hold, from kilobytes of their files; the same wherever they lie."""
        samples = max(1, _HASH_SAMPLES // len(self.slices))
        paths = list(self.num_bytes)
        contents = map_paths(lambda path: content_sample(path, samples), paths)
        digest = hashlib.sha256()
        for piece in self.slices:
            digest.update(contents[piece.path] + f"{piece.start}:{piece.stop};".encode())
        return digest.hexdigest()[:32]

    def close(self) -> None:
        """Close all files."""
        self._pool.close()


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
