"""Where records lie in files laid one behind the other into one range of addresses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from arsrc._host.format.layout import BLOCK_BYTES, STREAM_BYTES, to_physical
from arsrc._host.format.numbering import Column, Found, Integers
from arsrc._host.format.places import Places
from arsrc.paths import FileSlice


class Located(NamedTuple):
    """Where records lie.

    Attributes:
        slices: i64[n], the number of the slice of each.
        starts: i64[n], logical positions in the range.
        begins: i64[n], physical ones.
        lengths: i64[n], bytes of each; one number where all records that there are have the same.
    """

    slices: Integers
    starts: Integers
    begins: Integers
    lengths: Column

    @property
    def num_bytes(self) -> int | None:
        """Bytes of all records if that is known without a sum, else None."""
        return self.lengths * len(self.starts) if isinstance(self.lengths, int) else None

    def part(self, start: int, stop: int) -> "Located":
        """Return where the records `[start, stop)` of these lie."""
        lengths = self.lengths if isinstance(self.lengths, int) else self.lengths[start:stop]
        return Located(self.slices[start:stop], self.starts[start:stop], self.begins[start:stop], lengths)


class RecordIndex:
    """The places of the records of slices, those of one kind joined."""

    def __init__(self, slices: Sequence[FileSlice], places: Mapping[str, Places], begins: Mapping[str, int]) -> None:
        """Join the places of files.

        Args:
            slices: All slices.
            places: Of each file by its path; nobody will ask for records of the others.
            begins: Where each file begins in the range, multiples of 64 KiB.
        """
        self._kinds = np.zeros(len(slices), np.int64)  # of each slice, an index into `_joined`
        self._numbers = np.zeros(len(slices), np.int64)  # of each slice, among those of its kind
        self._joined: list[Places] = []
        kinds = [type(places.get(piece.path)) for piece in slices]
        for kind in {type(one) for one in places.values()}:
            numbers = [number for number, one in enumerate(kinds) if one is kind]
            some = [slices[number] for number in numbers]
            self._kinds[numbers] = len(self._joined)
            self._numbers[numbers] = np.arange(len(numbers))
            parts: list[Any] = [places[p.path].cut(p.start, p.start + p.num_records) for p in some]
            self._joined.append(kind.join(parts, [begins[p.path] // BLOCK_BYTES * STREAM_BYTES for p in some]))
        self._is_one = len(set(kinds)) == 1

    def locate(self, found: Found) -> Located:
        """Return where records lie."""
        slices, positions = found
        if self._is_one:
            starts, lengths = self._joined[0].locate(slices, positions)
            return Located(slices, starts, to_physical(starts), lengths)
        starts, all_lengths = np.empty_like(positions), np.empty_like(positions)
        kinds, numbers = self._kinds[slices], self._numbers[slices]
        for kind, places in enumerate(self._joined):
            at = np.flatnonzero(kinds == kind)
            if len(at):
                starts[at], all_lengths[at] = places.locate(numbers[at], positions[at])
        return Located(slices, starts, to_physical(starts), all_lengths)
