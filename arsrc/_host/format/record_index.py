"""Where records lie in files laid one behind the other into one range of addresses."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from arsrc._host.format.chunked import Chunked
from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.layout import BLOCK_BYTES, STREAM_BYTES, to_physical
from arsrc._host.format.numbering import Column, Found, Integers, Numbering
from arsrc._host.format.places import Enclosing, Places


class Located(NamedTuple):
    """Where records lie.

    Attributes:
        slices: i64[n], the number of the slice of each.
        positions: i64[n], the position of each in its file.
        names: i64[n], the number by which who asks for it knows each.
        starts: i64[n], logical positions in the range.
        begins: i64[n], physical ones.
        lengths: i64[n], bytes of each; one number where all records that there are have the same.
    """

    slices: Integers
    positions: Integers
    names: Integers
    starts: Integers
    begins: Integers
    lengths: Column

    @property
    def num_bytes(self) -> int | None:
        """Bytes of all records if that is known without a sum, else None."""
        return self.lengths * len(self.starts) if isinstance(self.lengths, int) else None

    def part(self, start: int, stop: int) -> "Located":
        """Return where the records `[start, stop)` of these lie."""
        return self.at(slice(start, stop))

    def at(self, rows: Integers | slice) -> "Located":
        """Return where some of these records lie."""
        slices, positions, names, starts, begins = (column[rows] for column in self[:5])
        lengths = self.lengths if isinstance(self.lengths, int) else self.lengths[rows]
        return Located(slices, positions, names, starts, begins, lengths)


class RecordIndex:
    """The places of the records of slices, those of one kind joined.

    Attributes:
        is_single: Whether each record has a chunk of its own, whose header stands right in front of it.
    """

    def __init__(self, numbering: Numbering, indices: Mapping[str, FileIndex], begins: Mapping[str, int]) -> None:
        """Join the indices of files.

        Args:
            numbering: The slices.
            indices: By the path of a slice; nobody will ask for records of other slices.
            begins: Where each file begins in the range, by its path: multiples of 64 KiB.
        """
        self._kinds = np.zeros(len(numbering.slices), np.int64)  # of each slice, an index into `_joined`
        self._numbers = np.zeros(len(numbering.slices), np.int64)  # of each slice, among those of its kind
        self._joined: list[Places] = []
        parts: dict[Any, list[tuple[int, Places, int]]] = {}
        for number, piece in enumerate(numbering.slices):
            if (index := indices.get(piece.path)) is not None:
                assert not isinstance(index.places, Chunked)
                part = index.places.cut(piece.start, piece.start + piece.num_records)
                shift = begins[index.path] // BLOCK_BYTES * STREAM_BYTES
                parts.setdefault(type(part), []).append((number, part, shift))
        for kind, some in parts.items():
            numbers, places, shifts = map(list, zip(*some, strict=True))
            self._kinds[numbers] = len(self._joined)
            self._numbers[numbers] = np.arange(len(numbers))
            self._joined.append(kind.join(places, shifts))
        self.is_single = all(places.is_single for places in self._joined)
        self._is_one = len(self._joined) == 1 and len(numbers) == len(self._kinds)

    def locate(self, found: Found) -> Located:
        """Return where records lie."""
        slices, positions, names = found
        if self._is_one:
            starts, lengths = self._joined[0].locate(slices, positions)
            return Located(slices, positions, names, starts, to_physical(starts), lengths)
        starts, all_lengths = np.empty_like(positions), np.empty_like(positions)
        for at, numbers, places in self._by_kind(slices):
            starts[at], all_lengths[at] = places.locate(numbers, positions[at])
        return Located(slices, positions, names, starts, to_physical(starts), all_lengths)

    def enclosing(self, located: Located) -> Enclosing:
        """Return the chunks that records lie in."""
        slices, positions = located.slices, located.positions
        if self._is_one:
            return self._joined[0].enclosing(slices, positions)
        columns = [np.empty_like(positions) for _ in Enclosing._fields]
        for at, numbers, places in self._by_kind(slices):
            for whole, part in zip(columns, places.enclosing(numbers, positions[at]), strict=True):
                whole[at] = part
        return Enclosing(*columns)

    def _by_kind(self, slices: Integers) -> Iterator[tuple[Integers, Integers, Places]]:
        """Yield the rows of each kind, the numbers of their slices among those of it, and the joined places."""
        kinds, numbers = self._kinds[slices], self._numbers[slices]
        for kind, places in enumerate(self._joined):
            at = np.flatnonzero(kinds == kind)
            if len(at):
                yield at, numbers[at], places
