"""Where the records of many files of one kind lie: three kinds of index, joined over the files of a range.

Each class takes the slices of files (`FileRange`), their `shifts`, the logical positions at which the files
begin in the range, and their `bases`, the ids of their first records. Its `locate(files, record_ids)` takes the
number of the slice of each record, and its id, and gives logical positions in the range and lengths.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.file_index import FileIndex, Spans, Uniform
from arsrc._host.format.footer import values_of_spans
from arsrc._host.format.groups import Groups

Integers: TypeAlias = NDArray[np.int64]
# Starts, and lengths: one number where all records that there are have the same.
Located: TypeAlias = tuple[Integers, Integers | int]


@dataclasses.dataclass(frozen=True)
class FileRange:
    """Records `[start, stop)` of an indexed file."""

    index: FileIndex
    start: int
    stop: int


class _Column:
    """One number for each file, looked up only where the files differ."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = np.array(values, np.int64)
        self._same = values[0] if len(set(values)) == 1 else None

    def __getitem__(self, files: Integers) -> Integers | int:
        return self._values[files] if self._same is None else self._same


class UniformFiles:
    """Records of one length in each file: arithmetic."""

    def __init__(self, ranges: Sequence[FileRange], shifts: Sequence[int], bases: Sequence[int]) -> None:
        places = [cast(Uniform, piece.index.places) for piece in ranges]
        self._length = _Column([place.length for place in places])
        self._span = _Column([place.span for place in places])
        self._group_size = _Column([place.group_size for place in places])
        self._single = all(place.group_size == 1 for place in places)
        skipped = _differences([piece.start for piece in ranges], bases)
        self._skipped = _Column(skipped)
        # With one record to a chunk, what `_skipped` adds goes into the position of the first.
        parts = zip(places, shifts, skipped, strict=True)
        firsts = [p.first + shift + (p.span * skip if self._single else 0) for p, shift, skip in parts]
        self._first = _Column(firsts)
        last_records = [piece.index.num_records - 1 for piece in ranges]
        last_chunks = [last // place.group_size for last, place in zip(last_records, places, strict=True)]
        self._last_chunk = _Column(last_chunks)
        self._last_shift = _Column([place.last_shift for place in places])

    def locate(self, files: Integers, record_ids: Integers) -> Located:
        """Return starts and lengths."""
        if self._single:
            return record_ids * self._span[files] + self._first[files], self._length[files]
        rows, group_size = record_ids + self._skipped[files], self._group_size[files]
        chunks, within = rows // group_size, rows % group_size
        starts: Integers = chunks * self._span[files]
        starts += within * self._length[files] + self._first[files]
        starts -= (chunks == self._last_chunk[files]) * self._last_shift[files]
        return starts, self._length[files]


class SpanFiles:
    """Records of any lengths, one to a chunk: a table of where chunks begin."""

    def __init__(self, ranges: Sequence[FileRange], shifts: Sequence[int], bases: Sequence[int]) -> None:
        tables = [cast(Spans, p.index.places).begins[p.start : p.stop + 1] for p in ranges]
        self._begins = _join(tables, shifts)
        self._bases = _Column(_differences(_bases(tables), bases))

    def locate(self, files: Integers, record_ids: Integers) -> Located:
        """Return starts and lengths."""
        at = record_ids + self._bases[files]
        ends = self._begins[at + 1]
        lengths = values_of_spans(ends - self._begins[at])
        return ends - lengths, lengths


class GroupFiles:
    """Records of any lengths, several to a chunk or in padded chunks: tables of chunks and of records."""

    def __init__(self, ranges: Sequence[FileRange], shifts: Sequence[int], bases: Sequence[int]) -> None:
        places = [cast(Groups, piece.index.places) for piece in ranges]
        sizes = [place.group_size for place in places]
        pairs = list(zip(ranges, sizes, strict=True))
        chunks = [slice(piece.start // size, (piece.stop - 1) // size + 1) for piece, size in pairs]
        begins = [place.begins[c.start : c.stop + 1] for place, c in zip(places, chunks, strict=True)]
        triples = list(zip(places, chunks, sizes, strict=True))
        within = [place.within[c.start * size : c.stop * size] for place, c, size in triples]
        self._begins = _join(begins, shifts)
        self._within = within[0] if len(within) == 1 else np.concatenate(within)
        self._ends = None
        if any(place.ends is not None for place in places):
            ends = [(p.begins[1:] if p.ends is None else p.ends)[c] for p, c, _ in triples]
            self._ends = _join(ends, shifts)
        self._group_size = _Column(sizes)
        self._chunk_bases = _Column(_bases(begins))
        self._row_bases = _Column(_bases(within))
        self._num_rows = _Column([len(table) for table in within])
        self._skipped = _Column(_differences([piece.start % size for piece, size in pairs], bases))

    def locate(self, files: Integers, record_ids: Integers) -> Located:
        """Return starts and lengths."""
        rows = record_ids + self._skipped[files]  # counted from the first chunk that the slice touches
        group_size = self._group_size[files]
        chunks, in_chunk = np.divmod(rows, group_size)
        at = chunks + self._chunk_bases[files]
        begins = self._begins[at]
        # The table of ends has one entry less for each file in front.
        ends = self._begins[at + 1] if self._ends is None else self._ends[at - files]
        entries = rows + self._row_bases[files]
        starts = begins + self._within[entries]
        inside = np.flatnonzero((in_chunk + 1 < group_size) & (rows + 1 < self._num_rows[files]))
        ends[inside] = begins[inside] + self._within[entries[inside] + 1]
        return starts, ends - starts


def _bases(tables: Sequence[NDArray[np.generic]]) -> list[int]:
    """Return where each table begins when they are laid end to end."""
    return [0, *itertools.accumulate(len(table) for table in tables[:-1])]


def _differences(values: Sequence[int], others: Sequence[int]) -> list[int]:
    return [value - other for value, other in zip(values, others, strict=True)]


def _join(tables: Sequence[Integers], shifts: Sequence[int]) -> Integers:
    """Lay tables of positions end to end, each moved to where its file lies."""
    if len(tables) == 1 and not shifts[0]:
        return tables[0]
    return np.concatenate([table + shift for table, shift in zip(tables, shifts, strict=True)])
