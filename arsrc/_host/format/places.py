"""Where records lie: the kinds of index that a file can have, each of which can be joined over many files.

Of every kind there is one class, for one file and for many. `cut` returns what of one file a slice needs, `join`
lays such parts of many files together, each moved by the logical position at which its file begins in a range of
addresses, and `locate` takes the number of the part of each record and its position in its file, and gives logical
positions in the range, and lengths: one number where all records that there are have the same.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import values_of_spans
from arsrc._host.format.numbering import Column, Integers, column, pick


class Enclosing(NamedTuple):
    """The chunks around records, as the index has them.

    Attributes:
        begins: i64[n], logical positions of the chunk of each.
        ends: i64[n], those behind its data.
        num_bytes: i64[n], bytes of all its records.
        counts: i64[n], how many there are.
    """

    begins: Integers
    ends: Integers
    num_bytes: Column
    counts: Column


@dataclasses.dataclass(frozen=True, eq=False)
class Uniform:
    """Records of one length, in chunks of one length: arithmetic, no table.

    Attributes:
        length: Bytes of each record.
        group_size: Records in each chunk but the last one.
        first: Logical position of record 0.
        span: Bytes from one chunk to the next.
        last_chunk: Number of the last chunk.
        last_shift: By how much earlier records begin in the last chunk, which has fewer of them.
        last_count: Records in the last chunk.
    """

    length: Column
    group_size: Column
    first: Column
    span: Column
    last_chunk: Column = 0
    last_shift: Column = 0
    last_count: Column = 1

    @property
    def is_single(self) -> bool:
        """Whether each record has a chunk of its own."""
        return isinstance(self.group_size, int) and self.group_size == 1

    def cut(self, start: int, stop: int) -> Self:
        """Return what the positions `[start, stop)` need."""
        del start, stop
        return self

    @classmethod
    def join(cls, parts: Sequence[Self], shifts: Sequence[int]) -> Self:
        """Return parts as one, each moved by a number of bytes."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in dataclasses.fields(cls)}
        columns["first"] = [first + shift for first, shift in zip(columns["first"], shifts, strict=True)]
        return cls(**{name: column(values) for name, values in columns.items()})

    def locate(self, slices: Integers, positions: Integers) -> tuple[Integers, Column]:
        """Return starts and lengths."""
        length, span, first = pick(self.length, slices), pick(self.span, slices), pick(self.first, slices)
        if self.is_single:
            return positions * span + first, length
        group_size = pick(self.group_size, slices)
        chunks, within = positions // group_size, positions % group_size
        starts: Integers = chunks * span
        starts += within * length + first
        starts -= (chunks == pick(self.last_chunk, slices)) * pick(self.last_shift, slices)
        return starts, length

    def enclosing(self, slices: Integers, positions: Integers) -> Enclosing:
        """Return the chunks of records."""
        length, span, first = pick(self.length, slices), pick(self.span, slices), pick(self.first, slices)
        if self.is_single:
            begins: Integers = positions * span + (first + length - span)
            return Enclosing(begins, begins + span, length, 1)
        group_size = pick(self.group_size, slices)
        chunks = positions // group_size
        is_last = chunks == pick(self.last_chunk, slices)
        counts = group_size - is_last * (group_size - pick(self.last_count, slices))
        begins = chunks * span + (first + group_size * length - span)
        ends = begins + span - (group_size - counts) * length - is_last * pick(self.last_shift, slices)
        return Enclosing(begins, ends, counts * length, counts)


@dataclasses.dataclass(frozen=True, eq=False)
class Spans:
    """Records of any lengths, one to a chunk: a table of where chunks begin.

    Attributes:
        begins: i64[num_records + 1], logical positions of the chunks, and of what follows the last. The length of
            a record follows from the distance to the next chunk.
        base: What to add to a position to get to its entry.
    """

    begins: Integers
    base: Column = 0
    is_single = True

    def cut(self, start: int, stop: int) -> "Spans":
        """Return what the positions `[start, stop)` need."""
        return Spans(self.begins[start : stop + 1], -start)

    @classmethod
    def join(cls, parts: Sequence[Self], shifts: Sequence[int]) -> "Spans":
        """Return parts as one, each moved by a number of bytes."""
        tables = [part.begins for part in parts]
        return Spans(join_positions(tables, shifts), bases_of(tables, [part.base for part in parts]))

    def locate(self, slices: Integers, positions: Integers) -> tuple[Integers, Column]:
        """Return starts and lengths."""
        entries = positions + pick(self.base, slices)
        ends = self.begins[entries + 1]
        lengths = values_of_spans(ends - self.begins[entries])
        return ends - lengths, lengths

    def enclosing(self, slices: Integers, positions: Integers) -> Enclosing:
        """Return the chunks of records."""
        entries = positions + pick(self.base, slices)
        begins, ends = self.begins[entries], self.begins[entries + 1]
        return Enclosing(begins, ends, values_of_spans(ends - begins), 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Records of any lengths, several to a chunk or in padded chunks: tables of chunks and of records.

    Attributes:
        group_size: Records in each chunk but the last one.
        begins: i64[num_chunks + 1], logical positions of the chunks, and of what follows the last.
        ends: i64[num_chunks + 1], logical positions behind the chunks' data; the last means nothing. None where
            these are `begins[1:]`.
        within: u32[num_records], where each record begins, counted from the beginning of its chunk.
        stop: The position behind the last record.
        chunk_base: What to add to the number of a chunk to get to its entry.
        base: What to add to a position to get to its entry.
    """

    group_size: Column
    begins: Integers
    ends: Integers | None
    within: NDArray[np.uint32]
    stop: Column
    chunk_base: Column = 0
    base: Column = 0
    is_single = False

    def cut(self, start: int, stop: int) -> "Groups":
        """Return what the positions `[start, stop)` need: whole chunks."""
        assert isinstance(self.group_size, int)
        first, last = start // self.group_size, (stop - 1) // self.group_size + 1
        row = first * self.group_size
        within = self.within[row : last * self.group_size]
        ends = None if self.ends is None else self.ends[first : last + 1]
        begins = self.begins[first : last + 1]
        return Groups(self.group_size, begins, ends, within, row + len(within), -first, -row)

    @classmethod
    def join(cls, parts: Sequence[Self], shifts: Sequence[int]) -> "Groups":
        """Return parts as one, each moved by a number of bytes."""
        begins, within = [part.begins for part in parts], [part.within for part in parts]
        ends = None
        if any(part.ends is not None for part in parts):
            ends = join_positions(
                [np.roll(part.begins, -1) if part.ends is None else part.ends for part in parts], shifts
            )
        return Groups(
            column([part.group_size for part in parts]),
            join_positions(begins, shifts),
            ends,
            within[0] if len(within) == 1 else np.concatenate(within),
            column([part.stop for part in parts]),
            bases_of(begins, [part.chunk_base for part in parts]),
            bases_of(within, [part.base for part in parts]),
        )

    def locate(self, slices: Integers, positions: Integers) -> tuple[Integers, Column]:
        """Return starts and lengths."""
        group_size = pick(self.group_size, slices)
        chunks, in_chunk = divmod(positions, group_size)
        chunks += pick(self.chunk_base, slices)
        entries = positions + pick(self.base, slices)
        begins = self.begins[chunks]
        ends = self.begins[chunks + 1] if self.ends is None else self.ends[chunks]
        starts = begins + self.within[entries]
        inside = np.flatnonzero((in_chunk + 1 < group_size) & (positions + 1 < pick(self.stop, slices)))
        ends[inside] = begins[inside] + self.within[entries[inside] + 1]
        return starts, ends - starts

    def enclosing(self, slices: Integers, positions: Integers) -> Enclosing:
        """Return the chunks of records."""
        group_size = pick(self.group_size, slices)
        chunks = positions // group_size
        firsts = chunks * group_size
        counts = np.minimum(group_size, pick(self.stop, slices) - firsts)
        chunks += pick(self.chunk_base, slices)
        begins = self.begins[chunks]
        ends = self.begins[chunks + 1] if self.ends is None else self.ends[chunks]
        heads = self.within[firsts + pick(self.base, slices)]
        return Enclosing(begins, ends, ends - begins - heads, counts)


Places: TypeAlias = Uniform | Spans | Groups


def bases_of(tables: Sequence[NDArray[np.generic]], bases: Sequence[Column]) -> Column:
    """Return what to add to get to the entries of each table when they are laid end to end."""
    firsts = itertools.accumulate((len(table) for table in tables[:-1]), initial=0)
    return column([first + base for first, base in zip(firsts, bases, strict=True)])


def join_positions(tables: Sequence[Integers], shifts: Sequence[int]) -> Integers:
    """Lay tables of positions end to end, each moved to where its file lies."""
    if len(tables) == 1 and not shifts[0]:
        return tables[0]
    return np.concatenate([table + shift for table, shift in zip(tables, shifts, strict=True)])
