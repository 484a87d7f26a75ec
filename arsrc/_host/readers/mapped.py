"""Reading uncompressed ArrayRecord files from one map of them all, a whole batch at a time.

    area = AddressRange.reserve(...)           # for all files; those that `index_files` can index are mapped
    files = MappedFiles(area, numbering, indices, ...)
    batch = files.copy(files.locate(numbering.find(record_ids)))

What it gives is always a copy, so it outlives the map. Around each record it checks what the file holds there against
the index. What it cannot see is a payload that changed on the disk without a write to the file: that takes the chunks'
hashes, which only array_record's reader computes.
"""

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.careful import copy_equal, copy_records
from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.gather import LARGE_RECORD_BYTES, copy_runs, gather_equal, gather_ragged, scatter
from arsrc._host.format.layout import CHUNK_HEADER_BYTES
from arsrc._host.format.numbering import Found, Integers, Numbering
from arsrc._host.format.record_index import Located, RecordIndex
from arsrc._host.format.singles import copy_singles, damaged_singles, uncompressed
from arsrc._host.format.structure import damaged
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.readers.map_reads import BadRows, MapReads
from arsrc._host.storage.address_range import AddressRange
from arsrc.errors import ArsrcValueError
from arsrc.record_batch import RecordBatch, uniform_offsets

_NONE = np.zeros(0, np.int64)
_POOL_BYTES = 1 << 16  # from here on JAX saves by memory that it need not copy, from 3 MiB on the copying itself too


class MappedFiles:
    """The records of mapped files. Safe to use from several threads.

    Attributes:
        reads: Does what is to be done around each read.
    """

    def __init__(
        self,
        area: AddressRange,
        numbering: Numbering,
        indices: Mapping[str, FileIndex],
        buffers: BufferPool,
        copier: Copier,
        limit: float | None = None,
    ) -> None:
        """Join the indices of files.

        Args:
            area: The files, mapped.
            numbering: The slices.
            indices: By the path of a slice; records of other slices cannot be read.
            buffers: Where batches of 64 KiB or more come from, unless `copy` is given an output.
            copier: Threads for large batches.
            limit: Most seconds that a read may take, None for any.
        """
        self.reads = MapReads(area, numbering, indices, limit)
        self._buffers, self._copier = buffers, copier
        self._index = RecordIndex(numbering, indices, area.begins)

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
            BadRows: Some records cannot be copied, or something else stands around them.
        """
        if self.reads.limit is not None:  # a thread that is left behind must not write to what the caller has
            out = None

        def read(area: AddressRange, is_careful: bool) -> RecordBatch:
            return self._gather(area, located, out, is_careful)

        return self.reads.run(located.slices, lambda: self._ranges(located, located), read)

    def copy_parts(
        self, located: Located, skips: Integers, lengths: Integers, out: NDArray[np.uint8], places: Integers
    ) -> None:
        """Copy some bytes of each record that `locate` found, each run to a place of its own.

        Args:
            located: Where the records lie.
            skips: i64[n], bytes of each that are left out in front.
            lengths: i64[n], bytes of each that are copied.
            out: u8[...] to write into, contiguous.
            places: i64[n], where in it those of each shall begin.

        Raises:
            ArsrcReadError: As for `copy`.
            BadRows: As for `copy`; what `out` holds is not known then.
        """
        parts = located._replace(starts=located.starts + skips, lengths=lengths)
        # A thread that is left behind must not write to what the caller has.
        target = out if self.reads.limit is None else np.empty_like(out)

        def read(area: AddressRange, is_careful: bool) -> None:
            self._scatter(area, located, parts, target, places, is_careful)

        self.reads.run(located.slices, lambda: self._ranges(located, parts), read)
        if target is not out:
            out[...] = target

    def locate(self, found: Found) -> Located:
        """Return where records lie, to be copied at any later time."""
        return self._index.locate(found)

    def _ranges(self, located: Located, parts: Located) -> tuple[Integers, Integers]:
        """Return where what is read begins and ends: parts of records, and what is checked around these."""
        chunks = self._index.enclosing(located)
        begins = chunks.begins, parts.starts, chunks.ends
        ends = chunks.begins + CHUNK_HEADER_BYTES, parts.starts + parts.lengths, chunks.ends + CHUNK_HEADER_BYTES
        return np.concatenate(begins), np.concatenate(ends)

    def _gather(
        self, area: AddressRange, located: Located, out: NDArray[np.uint8] | None, is_careful: bool
    ) -> RecordBatch:
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
        # Large records take no longer with care.
        is_careful = area.can_copy and (is_careful or num_bytes > num_rows * LARGE_RECORD_BYTES)
        copy = self._copy_carefully if is_careful else self._copy_rows
        length = lengths if isinstance(lengths, int) else None
        num_parts = min(self._copier.num_parts(num_bytes), max(num_rows, 1))
        if num_parts == 1:
            result, missing, wrong = copy(area, located, length, offsets, out)
            _raise_bad(missing, wrong)
            return RecordBatch(result, offsets)
        result = np.empty(num_bytes, np.uint8) if out is None else out[:num_bytes]
        bad: list[tuple[Integers, Integers]] = []

        def work(first: int, last: int) -> None:
            bounds = offsets[first : last + 1]
            part = result[bounds[0] : bounds[-1]]
            _, missing, wrong = copy(area, located.part(first, last), length, bounds - bounds[0], part)
            bad.append((first + missing, first + wrong))

        self._copier.run(work, [num_rows * i // num_parts for i in range(num_parts + 1)])
        _raise_bad(*map(np.concatenate, zip(*bad, strict=True)))
        return RecordBatch(result, offsets)

    def _copy_rows(
        self,
        area: AddressRange,
        located: Located,
        length: int | None,
        offsets: Integers,
        out: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.uint8], Integers, Integers]:
        """Return the bytes of records, rows that cannot be read, and rows around which something else stands.

        Args:
            area: The files.
            located: Where the records lie.
            length: Bytes of each if it is one number.
            offsets: i64[n + 1], where each record shall stand.
            out: The bytes are the beginning of it where it is given.
        """
        if self._index.is_single and length is not None and length <= LARGE_RECORD_BYTES:
            result, wrong = copy_singles(area.data, located.begins, uncompressed(length), out)
            return result, _NONE, wrong
        wrong = self._damaged(area, located)  # first what is around them: their own bytes are on the way then
        if length is not None and length <= LARGE_RECORD_BYTES:
            return gather_equal(area.data, located.begins, length, out), _NONE, wrong
        return gather_ragged(area.data, located.starts, offsets, out), _NONE, wrong

    def _damaged(self, area: AddressRange, located: Located) -> Integers:
        """Return the rows of records around which something else stands."""
        lengths = located.lengths
        is_small = not isinstance(lengths, int) and lengths.max(initial=0) <= LARGE_RECORD_BYTES
        if self._index.is_single and is_small and not isinstance(lengths, int):
            return damaged_singles(area.data, located.starts, located.begins, lengths)
        return damaged(lambda begins, n: gather_equal(area.data, begins, n, None), located, self._index)

    def _scatter(
        self,
        area: AddressRange,
        located: Located,
        parts: Located,
        out: NDArray[np.uint8],
        places: Integers,
        is_careful: bool,
    ) -> None:
        """Copy parts of records to places of their own."""
        lengths = parts.lengths
        assert not isinstance(lengths, int)
        if not (area.can_copy and is_careful):
            _raise_bad(_NONE, self._damaged(area, located))
            scatter(area.data, parts.starts, lengths, out, places)
            return
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        copy = np.empty(offsets[-1], np.uint8)
        missing = copy_records(area, parts.starts, offsets, copy)
        _raise_bad(missing, damaged(functools.partial(copy_equal, area), located, self._index))
        copy_runs(copy, offsets[:-1], lengths, out, places)

    def _copy_carefully(
        self,
        area: AddressRange,
        located: Located,
        length: int | None,
        offsets: Integers,
        out: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.uint8], Integers, Integers]:
        """Return what `_copy_rows` does, by means of the system."""
        del length
        result = np.empty(offsets[-1], np.uint8) if out is None else out[: offsets[-1]]
        missing = copy_records(area, located.starts, offsets, result)
        return result, missing, damaged(functools.partial(copy_equal, area), located, self._index)


def _raise_bad(missing: Integers, wrong: Integers) -> None:
    """Raise an error if there are rows that cannot be copied, or around which something else stands."""
    if len(missing) or len(wrong):
        raise BadRows(np.union1d(missing, wrong))
