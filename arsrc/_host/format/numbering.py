"""One numbering over the records of many slices of files: from a record id to a slice and a position in its file."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage.paths import FileSlice
from arsrc.errors import ArsrcIndexError

Integers: TypeAlias = NDArray[np.int64]
# One number for each slice, or one for all.
Column: TypeAlias = int | Integers

_BUCKETS_PER_SLICE = 16


def column(values: Sequence[Any]) -> Column:
    """Return one number for each slice as a column: looking up costs nothing where they are all the same."""
    return values[0] if len(set(values)) == 1 else np.array(values, np.int64)


def pick(values: Column, slices: Integers) -> Column:
    """Return the number of each slice."""
    return values if isinstance(values, int) else values[slices]


class Found(NamedTuple):
    """Where records are.

    Attributes:
        slices: i64[n], the number of the slice of each.
        positions: i64[n], the position of each in its file.
        names: i64[n], the number by which who asks for it knows each.
    """

    slices: Integers
    positions: Integers
    names: Integers

    def at(self, rows: Integers) -> "Found":
        """Return where some of these records are."""
        return Found(self.slices[rows], self.positions[rows], self.names[rows])


class Numbering:
    """The records of slices, numbered from 0, one slice behind the other.

    Attributes:
        slices: The slices that hold records, in order; their ends are filled in.
        num_records: Records in all.
    """

    def __init__(self, slices: Sequence[FileSlice]) -> None:
        self.slices = [piece for piece in slices if piece.num_records]
        sizes = np.array([piece.num_records for piece in self.slices], np.int64)
        self._stops = np.cumsum(sizes)  # i64[num_slices]
        self.num_records = int(self._stops[-1])
        firsts = self._stops - sizes  # i64[num_slices], the id of the first record of each
        starts = np.array([piece.start for piece in self.slices], np.int64)
        self._skipped = column((starts - firsts).tolist())
        # No bucket is larger than a slice, so that its records lie in the slice where it begins or in the next.
        self._bucket_bits = int(sizes.min()).bit_length() - 1
        num_buckets = (self.num_records >> self._bucket_bits) + 1
        self._buckets: Integers | None = None  # where slices differ much it would be large: search
        if num_buckets <= _BUCKETS_PER_SLICE * len(sizes):
            begins = np.arange(num_buckets) << self._bucket_bits
            self._buckets = np.searchsorted(self._stops, begins, side="right")

    def find(self, record_ids: Integers, names: Integers | None = None) -> Found:
        """Return where records are.

        Args:
            record_ids: i64[n]
            names: i64[n], how who asks for them numbers them; None: alike.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        ids = np.ascontiguousarray(record_ids, np.int64)
        # As unsigned numbers, negative ids are large ones. Nothing else keeps reads inside the files.
        if len(ids) and ids.view(np.uint64).max() >= self.num_records:
            wrong = ids[(ids < 0) | (ids >= self.num_records)]
            what = f"a record id lies outside [0, {self.num_records})"
            raise ArsrcIndexError("read", what, record_id=int(wrong[0]))
        slices = self._slices_of(ids)
        return Found(slices, ids + pick(self._skipped, slices), ids if names is None else names)

    def ids(self, found: Found) -> Integers:
        """Return the inverse of `find`."""
        return found.positions - pick(self._skipped, found.slices)

    def _slices_of(self, ids: Integers) -> Integers:
        if len(self.slices) == 1:
            return np.broadcast_to(np.int64(0), len(ids))
        if self._buckets is None:
            return np.searchsorted(self._stops, ids, side="right")
        slices: Integers = self._buckets[ids >> self._bucket_bits]
        slices += ids >= self._stops[slices]
        return slices
