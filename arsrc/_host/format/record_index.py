"""From record ids to logical positions, over the slices of many files laid into one range of addresses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import Spans, Uniform
from arsrc._host.format.groups import Groups
from arsrc._host.format.layout import BLOCK_BYTES, STREAM_BYTES, to_physical
from arsrc._host.format.places import FileRange, GroupFiles, SpanFiles, UniformFiles

_Joined: TypeAlias = UniformFiles | SpanFiles | GroupFiles
_BUCKETS_PER_SLICE = 16

_Join: TypeAlias = Callable[[Sequence[FileRange], Sequence[int], Sequence[int]], _Joined]
_KINDS: tuple[tuple[type, _Join], ...] = (
    (Uniform, UniformFiles),
    (Spans, SpanFiles),
    (Groups, GroupFiles),
)


class Located(NamedTuple):
    """Where records lie.

    Attributes:
        files: i64[n], the number of the slice of each.
        starts: i64[n], logical positions in the range.
        begins: i64[n], physical ones.
        lengths: i64[n], bytes of each; one number where all records that there are have the same.
    """

    files: NDArray[np.int64]
    starts: NDArray[np.int64]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64] | int

    @property
    def num_bytes(self) -> int | None:
        """Bytes of all records if that is known without a sum, else None."""
        return self.lengths * len(self.starts) if isinstance(self.lengths, int) else None

    def part(self, start: int, stop: int) -> "Located":
        """Return where the records `[start, stop)` of these lie."""
        lengths = self.lengths if isinstance(self.lengths, int) else self.lengths[start:stop]
        return Located(self.files[start:stop], self.starts[start:stop], self.begins[start:stop], lengths)


class RecordIndex:
    """The records of all slices, numbered from 0.

    Attributes:
        num_records: Records in all.
    """

    def __init__(self, ranges: Sequence[FileRange], positions: Sequence[int]) -> None:
        """Join the indices of files.

        Args:
            ranges: The slices, none of them empty.
            positions: Where each file begins in the range, multiples of 64 KiB.
        """
        sizes = np.array([piece.stop - piece.start for piece in ranges], np.int64)
        self._stops = np.cumsum(sizes)  # i64[num_files]
        self.num_records = int(sizes.sum())
        # No bucket is larger than a slice, so that its records lie in the slice where it begins or in the next.
        self._bucket_bits = int(sizes.min()).bit_length() - 1
        num_buckets = (self.num_records >> self._bucket_bits) + 1
        self._buckets: NDArray[np.int64] | None = None  # where slices differ much it would be large: search
        if num_buckets <= _BUCKETS_PER_SLICE * len(sizes):
            firsts = np.arange(num_buckets) << self._bucket_bits
            self._buckets = np.searchsorted(self._stops, firsts, side="right")
        shifts = np.array(positions, np.int64) // BLOCK_BYTES * STREAM_BYTES
        bases = self._stops - sizes  # i64[num_files], the id of the first record of each
        self._kinds = np.zeros(len(ranges), np.int64)
        self._numbers = np.zeros(len(ranges), np.int64)  # number of each slice among those of its kind
        self._places: dict[int, _Joined] = {}
        for kind, (index_type, join) in enumerate(_KINDS):
            files = [f for f, piece in enumerate(ranges) if isinstance(piece.index.places, index_type)]
            if files:
                self._kinds[files] = kind
                self._numbers[files] = np.arange(len(files))
                few = [ranges[f] for f in files]
                self._places[kind] = join(few, shifts[files].tolist(), bases[files].tolist())

    def _find(self, record_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the slice of each record."""
        if len(self._stops) == 1:
            return np.broadcast_to(np.int64(0), len(record_ids))
        if self._buckets is None:
            return np.searchsorted(self._stops, record_ids, side="right")
        files: NDArray[np.int64] = self._buckets[record_ids >> self._bucket_bits]
        files += record_ids >= self._stops[files]
        return files

    def locate(self, record_ids: NDArray[np.int64]) -> Located:
        """Return where records lie; the ids must be in `[0, num_records)`."""
        files = self._find(record_ids)
        if len(self._places) == 1:
            (places,) = self._places.values()
            starts, length = places.locate(files, record_ids)
            return Located(files, starts, to_physical(starts), length)
        starts, lengths = np.empty_like(record_ids), np.empty_like(record_ids)
        kinds = self._kinds[files]
        for kind, places in self._places.items():
            at = np.flatnonzero(kinds == kind)
            if len(at):
                starts[at], lengths[at] = places.locate(self._numbers[files[at]], record_ids[at])
        return Located(files, starts, to_physical(starts), lengths)
