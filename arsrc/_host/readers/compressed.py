"""Reading compressed ArrayRecord files from a map, a whole batch at a time.

Of each chunk is checked, on every read, what of uncompressed ones is: its header, what stands around it, and how many
bytes it decodes to. What looks wrong is for array_record's reader to say, which verifies hashes.
"""

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.careful import copy_records
from arsrc._host.format.chunk_data import FRONT_BYTES, Fronts, decode_chunk, read_fronts, read_headers
from arsrc._host.format.chunked import Chunked
from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, gather_ragged
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    STREAM_BYTES,
    LayoutError,
    to_physical,
)
from arsrc._host.format.numbering import Found, Integers, Numbering, pick
from arsrc._host.format.places import Enclosing
from arsrc._host.format.record_index import Located
from arsrc._host.format.singles import Form, copy_singles
from arsrc._host.format.stored import STREAMED_BYTES, stored
from arsrc._host.format.streams import ZSTD, decode_all
from arsrc._host.format.structure import FIELD_BYTES, CopyEqual, is_nothing_behind, wrong_block_headers
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.readers.map_copies import Streams, copier_of, gather
from arsrc._host.readers.map_reads import BadRows, MapReads
from arsrc._host.storage.address_range import AddressRange
from arsrc.record_batch import RecordBatch, uniform_offsets

_POOL_BYTES = 1 << 16
_SLAB_BYTES = 1 << 21  # decoded at a time, in the processor's cache and in memory that the allocator keeps


class CompressedFiles:
    """The records of compressed files, mapped. Safe to use from several threads.

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
        """Join the indices of files; the arguments are those of `MappedFiles`."""
        self.reads = MapReads(area, numbering, indices, limit)
        self._buffers, self._copier = buffers, copier
        self._numbers = np.full(len(numbering.slices), -1)  # of each slice, among those that are compressed
        parts: list[Chunked] = []
        shifts = []
        for number, piece in enumerate(numbering.slices):
            if (index := indices.get(piece.path)) is not None:
                assert isinstance(index.places, Chunked)
                self._numbers[number] = len(parts)
                parts.append(index.places.cut(piece.start, piece.start + piece.num_records))
                shifts.append(area.begins[index.path] // BLOCK_BYTES * STREAM_BYTES)
        self._index = Chunked.join(parts, shifts)

    def read(self, found: Found, out: NDArray[np.uint8] | None = None) -> RecordBatch:
        """Return records that each have a chunk of their own, all compressed in one way.

        Of as many bytes as `out` has, they lie there.

        Raises:
            ArsrcReadError: A file was changed while it was open, or the files were closed.
            BadRows: Some records cannot be read, or something else stands there.
        """
        slices = self._numbers[found.slices]
        chunks, letter = (
            self._index.enclosing(slices, found.positions),
            int(np.ravel(pick(self._index.letter, slices))[0]),
        )
        if self.reads.limit is not None:  # a thread that is left behind must not write to what the caller has
            out = None
        return self.reads.run(found.slices, lambda: _ranges(chunks), functools.partial(self._read, chunks, letter, out))

    def alike(self, found: Found, rows: Integers) -> list[Integers]:
        """Return some rows, parted by how the files of their records are compressed."""
        letters = pick(self._index.letter, self._numbers[found.slices[rows]])
        return [rows] if isinstance(letters, int) else [rows[letters == one] for one in np.unique(letters)]

    def holds(self, number: int) -> bool:
        """Whether the file of a slice is one of these."""
        return bool(self._numbers[number] >= 0)

    def num_bytes(self, numbers: Integers, groups: Integers) -> Integers:
        """Return how many bytes the records of chunks take, each of the file of a slice."""
        return np.asarray(self._index.enclosing(self._numbers[numbers], groups).num_bytes)

    def read_chunks(self, numbers: Integers, groups: Integers) -> list[RecordBatch]:
        """Return all records of chunks, each of the file of a slice.

        Raises:
            ArsrcReadError: As of `read`.
            BadRows: Some chunks cannot be read, or something else stands there.
        """
        slices = self._numbers[numbers]
        chunks, letters = self._index.enclosing(slices, groups), pick(self._index.letter, slices)
        counts = np.broadcast_to(chunks.counts, len(groups)).tolist()

        def read(area: AddressRange, is_careful: bool) -> list[RecordBatch]:
            copy = copier_of(area, is_careful)
            headers = copy(to_physical(chunks.begins), CHUNK_HEADER_BYTES).reshape(-1, CHUNK_HEADER_BYTES)
            ends, is_other = read_headers(headers, chunks)
            _check_around(copy, chunks, chunks.begins + ends, is_other)
            columns = np.broadcast_to(letters, len(counts)).tolist(), counts, np.asarray(chunks.num_bytes).tolist()
            batches, bad = [], []
            for row, kind in enumerate(zip(*columns, strict=True)):
                one = slice(row, row + 1)
                begin, size = chunks.begins[one] + CHUNK_HEADER_BYTES, ends[one] - CHUNK_HEADER_BYTES
                try:
                    batches.append(decode_chunk(gather(area, begin, size, is_careful).data.data, *kind))
                except (LayoutError, BadRows):
                    bad.append(row)
            if bad:
                raise BadRows(np.array(bad))
            return batches

        return self.reads.run(numbers, lambda: _ranges(chunks), read, "chunks")

    def _read(
        self, chunks: Enclosing, letter: int, out: NDArray[np.uint8] | None, area: AddressRange, is_careful: bool
    ) -> RecordBatch:
        lengths = np.asarray(chunks.num_bytes)
        offsets = _offsets(lengths)
        if not is_careful and letter == ZSTD and (form := _stored_form(chunks, offsets)) is not None:
            out = self._output(offsets, out)
            _, wrong = copy_singles(area.data, to_physical(chunks.ends - form.length), form, out)
            if len(wrong):
                raise BadRows(wrong)
            return RecordBatch(out, offsets)
        copy = copier_of(area, is_careful)
        fronts = copy(to_physical(chunks.begins), FRONT_BYTES).reshape(-1, FRONT_BYTES)
        front = read_fronts(fronts, chunks, letter)
        ends = chunks.begins + front.ends
        _check_around(copy, chunks, ends, front.is_other)
        out = self._output(offsets, out)  # of the size that headers and footer say
        if front.is_stored.all():
            self._copy_stored(area, ends - lengths, offsets, out, is_careful)
        else:
            self._decode(area, chunks, letter, front, offsets, out, is_careful)
        return RecordBatch(out, offsets)

    def _output(self, offsets: Integers, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        num_bytes = int(offsets[-1])
        if out is not None and len(out) == num_bytes:
            return out
        return self._buffers.take(num_bytes) if num_bytes >= _POOL_BYTES else np.empty(num_bytes, np.uint8)

    def _copy_stored(
        self, area: AddressRange, starts: Integers, offsets: Integers, out: NDArray[np.uint8], is_careful: bool
    ) -> None:
        """Copy records that stand at logical positions as they are."""
        bad: list[Integers] = []
        length = int(offsets[1])
        is_uniform = bool((np.diff(offsets) == length).all())
        are_large = int(offsets[-1]) > len(starts) * LARGE_RECORD_BYTES

        def work(first: int, last: int) -> None:
            bounds = offsets[first : last + 1]
            part, begins = out[bounds[0] : bounds[-1]], starts[first:last]
            if area.can_copy and (is_careful or are_large):
                bad.append(first + copy_records(area, begins, bounds - bounds[0], part))
            elif is_uniform and not are_large:
                gather_equal(area.data, to_physical(begins), length, part)
            else:
                gather_ragged(area.data, begins, bounds - bounds[0], part)

        self._copier.run_rows(work, offsets)
        if bad and len(rows := np.concatenate(bad)):
            raise BadRows(rows)

    def _decode(
        self,
        area: AddressRange,
        chunks: Enclosing,
        letter: int,
        front: Fronts,
        offsets: Integers,
        out: NDArray[np.uint8],
        is_careful: bool,
    ) -> None:
        """Decode records, of which some may stand as they are."""
        lengths = np.diff(offsets)
        starts = chunks.begins + np.where(front.is_stored, front.ends - lengths, front.streams)
        sizes = chunks.begins + front.ends - starts
        slab = max(1, _SLAB_BYTES * len(lengths) // max(int(offsets[-1]), 1))
        for first in range(0, len(lengths), slab):
            some = slice(first, first + slab)
            try:
                streams = gather(area, starts[some], sizes[some], is_careful)
            except BadRows as error:
                raise BadRows(first + error.rows) from None
            records, bad = _decoded(letter, streams, lengths[some], front.is_stored[some])
            if bad:
                raise BadRows(first + np.array(bad))
            out[offsets[first] : offsets[min(first + slab, len(lengths))]] = np.frombuffer(records, np.uint8)


def _decoded(
    letter: int, streams: Streams, lengths: Integers, is_stored: NDArray[np.bool_]
) -> tuple[bytes | memoryview, list[int]]:
    """Return records end to end, and the rows of those that are damaged.

    Args:
        letter: Of their compression.
        streams: Streams, and records that were stored as they are.
        lengths: i64[n], bytes of the records.
        is_stored: bool[n], which are stored.
    """
    data, begins, ends = streams
    if not is_stored.any():
        return decode_all(letter, data, begins, ends, lengths)
    rows = np.flatnonzero(~is_stored)
    decoded, bad = decode_all(letter, data, begins[rows], ends[rows], lengths[rows])
    stops = np.cumsum(np.where(is_stored, 0, lengths))
    begins, ends = np.where(is_stored, (begins, ends), (stops - lengths, stops))
    memory = data.data, memoryview(decoded)
    columns = is_stored.tolist(), begins.tolist(), ends.tolist()
    pieces = [memory[not stored][begin:end] for stored, begin, end in zip(*columns, strict=True)]
    return b"".join(pieces), rows[bad].tolist()


def _stored_form(chunks: Enclosing, offsets: Integers) -> Form | None:
    """Return the form of chunks if they seem to be stored ones, of small records of one length."""
    length = int(offsets[1])
    if length >= STREAMED_BYTES or offsets[-1] != length * (len(offsets) - 1):
        return None
    form = stored(length)
    span = CHUNK_HEADER_BYTES - FIELD_BYTES + len(form.head) + length
    is_such = (chunks.ends - chunks.begins == span) & (chunks.num_bytes == length)
    return form if is_such.all() else None


def _check_around(copy: CopyEqual, chunks: Enclosing, ends: Integers, is_other: NDArray[np.bool_]) -> None:
    """Raise `BadRows` where something else stands around chunks than the footer says, or did so in their headers.

    Args:
        copy: Copies bytes of the files.
        chunks: What the footer says.
        ends: i64[n], logical positions behind their data, as their headers say.
        is_other: bool[n], which headers say something else.
    """
    if not is_other.any():
        begins, behind = to_physical(chunks.begins), to_physical(ends)
        is_other = is_nothing_behind(copy, behind, ends < chunks.ends)
        # A block begins inside of these, or right in front.
        cut = np.flatnonzero((begins - BLOCK_HEADER_BYTES - 1) // BLOCK_BYTES != behind // BLOCK_BYTES)
        if len(cut):
            is_other[cut[_wrong_block_headers(copy, chunks.begins[cut], ends[cut])]] = True
    if is_other.any():
        raise BadRows(np.flatnonzero(is_other))


def _wrong_block_headers(copy: CopyEqual, begins: Integers, ends: Integers) -> Integers:
    first = to_physical(begins)
    return wrong_block_headers(
        copy, Located(begins, begins, begins, begins, first, ends - begins), first, to_physical(ends)
    )


def _ranges(chunks: Enclosing) -> tuple[Integers, Integers]:
    return chunks.begins, chunks.ends + CHUNK_HEADER_BYTES


def _offsets(lengths: Integers) -> Integers:
    if len(lengths) and (lengths == lengths[0]).all():
        return uniform_offsets(len(lengths), int(lengths[0]))
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
