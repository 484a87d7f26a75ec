"""Reading uncompressed ArrayRecord files from one map of them all, a whole batch at a time.

    indices = [file_index(path, num_records) for ...]        # None: not of that kind
    files = open_mapped([FileRange(index, start, stop), ...])
    batch = files.read(record_ids)

What it gives is always a copy, so it outlives the map. What it cannot see is a payload that changed on the
disk without a write to the file: that takes the chunks' hashes, which only array_record's reader computes. A
disk that fails to read kills the process, as it does with any map.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, gather_ragged
from arsrc._host.format.layout import STREAM_BYTES, to_physical
from arsrc._host.format.places import FileRange
from arsrc._host.format.record_index import Located, RecordIndex
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.gate import Gate
from arsrc._host.machine.waiting import num_waits
from arsrc._host.readers.cold_rule import ColdRule
from arsrc._host.readers.large_records import Descriptors, read_record
from arsrc._host.storage.address_range import MAX_MAPS, AddressRange
from arsrc._host.storage.stamps import FileStamp, FileWatch, changed
from arsrc.errors import ArsrcIndexError, ArsrcReadError, ArsrcValueError, message
from arsrc.record_batch import RecordBatch, uniform_offsets

_GAP_BYTES = 16_384  # reading so much more takes no longer than another request
_POOL_BYTES = 1 << 16  # below, the allocator gives out memory again by itself


@dataclasses.dataclass(frozen=True)
class MapOptions:
    """How to read mapped files.

    Attributes:
        random_access: Whether records will be read in random order. The system then fetches single pages;
            otherwise it reads on, which is faster for records that stand side by side.
        pool: Where batches of 64 KiB or more come from, unless `read` is given an output.
        copier: Threads for large batches.
        max_open_files: Most files with large records that are kept open.
    """

    random_access: bool = False
    pool: BufferPool | None = None
    copier: Copier | None = None
    max_open_files: int = 64


def open_mapped(files: Sequence[FileRange], options: MapOptions = MapOptions()) -> "MappedFiles | None":
    """Map files and number the records of their slices in this order.

    Args:
        files: The slices, of one file or of many. Their indices are joined: let go of them afterwards.
        options: How to read them.

    Returns:
        None where there are no records, or files cannot be mapped, or not so many.

    Raises:
        ArsrcReadError: A file is no longer what was indexed.
    """
    ranges = [piece for piece in files if piece.start < piece.stop]
    indices = {piece.index.path: piece.index for piece in ranges}  # slices of one file share its map
    ends = np.cumsum([index.stamp.num_bytes for index in indices.values()])
    area = AddressRange.reserve(int(ends[-1])) if 0 < len(indices) <= MAX_MAPS else None
    if area is None:
        return None
    positions = dict(zip(indices, [0, *ends[:-1].tolist()], strict=True))
    try:
        for path, index in indices.items():
            _map_file(area, positions[path], index)
    except OSError as error:
        area.unmap()
        if isinstance(error, ArsrcReadError):
            raise
        return None
    if options.random_access:
        area.expect_random_access()
    return MappedFiles(area, ranges, positions, options)


def _map_file(area: AddressRange, position: int, index: FileIndex) -> None:
    fd = os.open(index.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        now = FileStamp.of(os.fstat(fd))
        if now != index.stamp:
            raise changed(index.path, index.stamp, now)
        area.map_file(fd, position, index.stamp.num_bytes)
    finally:
        os.close(fd)


class MappedFiles:
    """The records of mapped files, numbered from 0; made by `open_mapped`. Safe to use from several threads.

    Attributes:
        num_records: Records in all slices.
    """

    def __init__(
        self,
        area: AddressRange,
        ranges: Sequence[FileRange],
        positions: Mapping[str, int],
        options: "MapOptions",
    ) -> None:
        self._area = area
        self._pool, self._copier = options.pool, options.copier
        self._files = [(piece.index, positions[piece.index.path]) for piece in ranges]
        self._descriptors = Descriptors(options.max_open_files)
        self._records = RecordIndex(ranges, [positions[piece.index.path] for piece in ranges])
        self.num_records = self._records.num_records
        self._watch = FileWatch([(piece.index.path, piece.index.stamp) for piece in ranges])
        self._gate = Gate()
        self._cold = ColdRule()

    def read(self, record_ids: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return records, copied, in the order of the ids; repeats are allowed.

        Args:
            record_ids: i64[n], in `[0, num_records)`.
            out: u8[at least all their bytes], contiguous, to write into. None: an array of the pool where
                there is one and it pays, else a new one, whose page faults may take longer than the copy.

        Returns:
            The records; `data` is the beginning of `out` where that is given, and else may be read-only.

        Raises:
            ArsrcIndexError: An id lies outside.
            ArsrcReadError: A file was changed while it was open, or the files were closed.
            ArsrcValueError: `out` is too small.
        """
        return self.copy(self.locate(record_ids), out)

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return the records that `locate` found, as `read` does."""
        with self._gate:
            self._watch.check(located.files)
            before = num_waits()
            if self._cold.is_worth_asking:  # a cold disk serves many requests at once faster than one by one
                self._area.will_need(located.begins, to_physical(located.starts + located.lengths), _GAP_BYTES)
            records = self._gather(located, out)
            self._cold.note(len(located.starts), num_waits() != before)
            return records

    def close(self) -> None:
        """Unmap the files after the reads that are under way; later ones fail. May be called again."""
        self._gate.close()
        self._area.unmap()
        self._descriptors.close()

    def locate(self, record_ids: NDArray[np.int64]) -> Located:
        """Return where records lie, to be copied at any later time.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        ids = np.ascontiguousarray(record_ids, np.int64)
        # As unsigned numbers, negative ids are large ones. Nothing else keeps reads inside the map.
        if len(ids) and ids.view(np.uint64).max() >= self.num_records:
            wrong = ids[(ids < 0) | (ids >= self.num_records)]
            what = f"a record id lies outside [0, {self.num_records})"
            raise ArsrcIndexError(message("read", what, record_id=int(wrong[0])))
        return self._records.locate(ids)

    def _gather(self, located: Located, out: NDArray[np.uint8] | None) -> RecordBatch:
        num_rows, lengths = len(located.starts), located.lengths
        if not isinstance(lengths, int) and num_rows and (lengths == lengths[0]).all():
            lengths = int(lengths[0])
        if isinstance(lengths, int):
            offsets = uniform_offsets(num_rows, lengths)
        else:
            offsets = np.zeros(num_rows + 1, np.int64)
            np.cumsum(lengths, out=offsets[1:])
        num_bytes = int(offsets[-1])
        if out is None:
            out = self._pool.take(num_bytes) if self._pool and num_bytes >= _POOL_BYTES else None
        elif len(out) < num_bytes:
            what = "the output is smaller than the records"
            raise ArsrcValueError(message("read", what, out_bytes=len(out), record_bytes=num_bytes))
        length = lengths if isinstance(lengths, int) else None
        num_parts = min(self._copier.num_parts(num_bytes), max(num_rows, 1)) if self._copier else 1
        if num_parts == 1:
            return RecordBatch(self._copy_rows(located, length, offsets, out), offsets)
        result = np.empty(num_bytes, np.uint8) if out is None else out[:num_bytes]

        def work(first: int, last: int) -> None:
            bounds = offsets[first : last + 1]
            part = result[bounds[0] : bounds[-1]]
            self._copy_rows(located.part(first, last), length, bounds - bounds[0], part)

        assert self._copier is not None
        self._copier.run(work, [num_rows * i // num_parts for i in range(num_parts + 1)])
        return RecordBatch(result, offsets)

    def _copy_rows(
        self, located: Located, length: int | None, offsets: NDArray[np.int64], out: NDArray[np.uint8] | None
    ) -> NDArray[np.uint8]:
        """Return the bytes of records, the beginning of `out` where that is given; `length` of each if it is one."""
        if offsets[-1] > len(located.starts) * LARGE_RECORD_BYTES:
            result = np.empty(offsets[-1], np.uint8) if out is None else out[: offsets[-1]]
            self._read_large(located, offsets, result)
            return result
        if length is not None and length <= LARGE_RECORD_BYTES:
            return gather_equal(self._area.data, located.begins, length, out)
        return gather_ragged(self._area.data, located.starts, offsets, out)

    def _read_large(self, located: Located, offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        memory: Any = memoryview(out)  # type: ignore[arg-type]
        columns = located.files, located.begins, located.starts, offsets[:-1], offsets[1:]
        for file, begin, start, at, stop in zip(*(column.tolist() for column in columns), strict=True):
            index, position = self._files[file]
            opened = self._descriptors.get(index)
            if opened is not None:
                if read_record(opened, begin - position, start % STREAM_BYTES, memory[at:stop]):
                    continue
                self._watch.check_all()  # it became shorter
            # The path leads elsewhere now: nobody changes the mapped file any more.
            gather_ragged(self._area.data, np.array([start]), np.array([0, stop - at]), out[at:stop])
