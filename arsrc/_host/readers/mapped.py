"""Reading uncompressed ArrayRecord files from one map of them all, a whole batch at a time.

    area = AddressRange.reserve(...)           # for all files; those that `index_files` can index are mapped
    files = MappedFiles(area, numbering, indices, ...)
    batch = files.copy(files.locate(numbering.find(record_ids)))

What it gives is always a copy, so it outlives the map. What it cannot see is a payload that changed on the
disk without a write to the file: that takes the chunks' hashes, which only array_record's reader computes. A
disk that fails to read kills the process, as it does with any map.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, gather_ragged
from arsrc._host.format.layout import STREAM_BYTES, to_physical
from arsrc._host.format.numbering import Found, Numbering
from arsrc._host.format.record_index import Located, RecordIndex
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.slow_reads import Reading
from arsrc._host.machine.waiting import num_waits
from arsrc._host.readers.cold_rule import ColdRule
from arsrc._host.readers.large_records import read_record
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.open_file import KeptOpen, OpenFile
from arsrc._host.storage.stamps import FileStamp, FileWatch, check_file, closed
from arsrc.errors import ArsrcValueError
from arsrc.record_batch import RecordBatch, uniform_offsets

_GAP_BYTES = 16_384  # reading so much more takes no longer than another request
_POOL_BYTES = 1 << 16  # from here on JAX saves by memory that it need not copy, from 3 MiB on the copying itself too


class MappedFiles:
    """The records of mapped files. Safe to use from several threads.

    Attributes:
        cold: Whether reads wait for the disk.
    """

    def __init__(
        self,
        area: AddressRange,
        numbering: Numbering,
        indices: Mapping[str, FileIndex],
        max_open_files: int,
        buffers: BufferPool,
        copier: Copier,
    ) -> None:
        """Join the indices of files.

        Args:
            area: The files, mapped.
            numbering: The slices.
            indices: By the path of a slice; records of other slices cannot be read.
            max_open_files: Most files with large records that are kept open.
            buffers: Where batches of 64 KiB or more come from, unless `copy` is given an output.
            copier: Threads for large batches.
        """
        self._area: AddressRange | None = area
        self._open_files, self._buffers, self._copier = KeptOpen[OpenFile](max_open_files), buffers, copier
        self._index = RecordIndex(numbering, indices, area.begins)
        found = {number: indices.get(piece.path) for number, piece in enumerate(numbering.slices)}
        self._files = {number: (i.path, i.stamp) for number, i in found.items() if i is not None}
        self._watch = FileWatch(self._files)
        self.cold = ColdRule()

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return the records that `locate` found, copied, in this order.

        Args:
            located: Where they lie.
            out: u8[at least all their bytes], contiguous, to write into. None: an array of the pool where
                it pays, else a new one, whose page faults may take longer than the copy.

        Returns:
            The records; `data` is the beginning of `out` where that is given, and else may be read-only.

        Raises:
            ArsrcReadError: A file was changed while it was open, or the files were closed.
            ArsrcValueError: `out` is too small.
        """
        with Reading(lambda: self._describe(located)):
            self._watch.check(located.slices)
            area = self._area  # keeps the map until this read is done, whoever closes it meanwhile
            if area is None:
                raise closed()
            before = num_waits()
            if self.cold.is_worth_asking:  # a cold disk serves many requests at once faster than one by one
                area.will_need(located.begins, to_physical(located.starts + located.lengths), _GAP_BYTES)
            records = self._gather(area, located, out)
            self.cold.note(len(located.starts), num_waits() != before)
            return records

    def _describe(self, located: Located) -> str:
        numbers = np.unique(located.slices).tolist()
        first = self._files[numbers[0]][0] if numbers else ""
        return f"{len(located.starts)} records of {len(numbers)} files, {first!r} the first"

    def take_over(self, before: "MappedFiles") -> None:
        """Go on where one with fewer of these files ends: with what it has measured, and the files that it refuses."""
        self.cold = before.cold
        self._watch.take_over(before._watch)

    def close(self) -> None:
        """Let go of the files: unmapped when no read is under way any more. Later ones fail."""
        self._area = None
        self._open_files.close()

    def locate(self, found: Found) -> Located:
        """Return where records lie, to be copied at any later time."""
        return self._index.locate(found)

    def _gather(self, area: AddressRange, located: Located, out: NDArray[np.uint8] | None) -> RecordBatch:
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
            out = self._buffers.take(num_bytes) if num_bytes >= _POOL_BYTES else None
        elif len(out) < num_bytes:
            what = "the output is smaller than the records"
            raise ArsrcValueError("read", what, out_bytes=len(out), record_bytes=num_bytes)
        length = lengths if isinstance(lengths, int) else None
        num_parts = min(self._copier.num_parts(num_bytes), max(num_rows, 1))
        if num_parts == 1:
            return RecordBatch(self._copy_rows(area, located, length, offsets, out), offsets)
        result = np.empty(num_bytes, np.uint8) if out is None else out[:num_bytes]

        def work(first: int, last: int) -> None:
            bounds = offsets[first : last + 1]
            part = result[bounds[0] : bounds[-1]]
            self._copy_rows(area, located.part(first, last), length, bounds - bounds[0], part)

        self._copier.run(work, [num_rows * i // num_parts for i in range(num_parts + 1)])
        return RecordBatch(result, offsets)

    def _copy_rows(
        self,
        area: AddressRange,
        located: Located,
        length: int | None,
        offsets: NDArray[np.int64],
        out: NDArray[np.uint8] | None,
    ) -> NDArray[np.uint8]:
        """Return the bytes of records, the beginning of `out` where that is given; `length` of each if it is one."""
        if offsets[-1] > len(located.starts) * LARGE_RECORD_BYTES:
            result = np.empty(offsets[-1], np.uint8) if out is None else out[: offsets[-1]]
            self._read_large(area, located, offsets, result)
            return result
        if length is not None and length <= LARGE_RECORD_BYTES:
            return gather_equal(area.data, located.begins, length, out)
        return gather_ragged(area.data, located.starts, offsets, out)

    def _read_large(
        self, area: AddressRange, located: Located, offsets: NDArray[np.int64], out: NDArray[np.uint8]
    ) -> None:
        memory: Any = memoryview(out)  # type: ignore[arg-type]
        rows = np.argsort(located.slices, kind="stable")  # file by file: each is looked up once
        columns = [
            c[rows].tolist() for c in (located.slices, located.begins, located.starts, offsets[:-1], offsets[1:])
        ]
        file, number = None, -1
        for this, begin, start, at, stop in zip(*columns, strict=True):
            if this != number:
                number, (path, stamp) = this, self._files[this]
                file, file_begin = self._open(path, stamp), area.begins[path]
            if file is not None and read_record(file, begin - file_begin, start % STREAM_BYTES, memory[at:stop]):
                continue
            check_file(path, stamp)  # it may have become shorter, before or after it was opened
            # The path leads elsewhere now: nobody changes the mapped file any more.
            gather_ragged(area.data, np.array([start]), np.array([0, stop - at]), out[at:stop])

    def _open(self, path: str, stamp: FileStamp) -> OpenFile | None:
        """Return an open file; None where its path does not lead to what was indexed any more."""

        def open_it() -> OpenFile:
            file = OpenFile(path)
            if file.stamp() != stamp:
                raise FileNotFoundError(path)
            return file

        try:
            return self._open_files.get(path, open_it)
        except OSError:
            return None
