"""Where the chunks of compressed files lie, and how many bytes each holds, of one file or of several joined."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.encoding import COMPRESSIONS
from arsrc._host.format.numbering import Column, Integers, column, pick
from arsrc._host.format.places import Enclosing, bases_of, join_positions


@dataclasses.dataclass(frozen=True, eq=False)
class Chunked:
    """Chunks of which nothing but the place, the size and the number of records is known until they are decoded.

    Attributes:
        letter: Of their compression, as chunks name it.
        group_size: Records in each chunk but the last one of a file.
        num_records: Records of the file.
        begins: i64[num_chunks + 1], logical positions of the chunks, and of what follows the last.
        sizes: u8, u16, u32 or u64[num_chunks + 1], bytes of all records of each; the last means nothing.
        base: What to add to the number of a chunk to get to its entry.
    """

    letter: Column
    group_size: Column
    num_records: Column
    begins: Integers
    sizes: NDArray[np.unsignedinteger]
    base: Column = 0

    @property
    def is_single(self) -> bool:
        """Whether each record has a chunk of its own."""
        return isinstance(self.group_size, int) and self.group_size == 1

    @property
    def encoding(self) -> str:
        """How the chunks of one file are compressed."""
        assert isinstance(self.letter, int)
        return COMPRESSIONS[self.letter]

    def cut(self, start: int, stop: int) -> "Chunked":
        """Return what the positions `[start, stop)` of one file need."""
        assert isinstance(self.group_size, int)
        first, last = start // self.group_size, (stop - 1) // self.group_size + 1
        some = slice(first, last + 1)
        return dataclasses.replace(self, begins=self.begins[some], sizes=self.sizes[some], base=-first)

    @classmethod
    def join(cls, parts: Sequence["Chunked"], shifts: Sequence[int]) -> "Chunked":
        """Return parts as one, each moved by a number of bytes."""
        tables = [part.begins for part in parts]
        sizes = [part.sizes for part in parts]
        return cls(
            column([part.letter for part in parts]),
            column([part.group_size for part in parts]),
            column([part.num_records for part in parts]),
            join_positions(tables, shifts),
            sizes[0] if len(sizes) == 1 else np.concatenate(sizes),
            bases_of(tables, [part.base for part in parts]),
        )

    def enclosing(self, slices: Integers, chunks: Integers) -> Enclosing:
        """Return what is known of chunks, given by slices and their numbers in files."""
        group_size = pick(self.group_size, slices)
        entries = chunks + pick(self.base, slices)
        counts: Column = 1
        if not self.is_single:
            counts = np.minimum(group_size, pick(self.num_records, slices) - chunks * group_size)
        begins, ends = self.begins[entries], self.begins[entries + 1]
        return Enclosing(begins, ends, self.sizes[entries].astype(np.int64), counts)
