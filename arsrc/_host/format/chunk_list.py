"""The chunks of a file that array_record's reader reads, as the file's footer lists them.

That reader believes its footer, whatever stands there: it reserves as many bytes as lie between two positions, looks
for records in chunks that are not there, and so ends the process.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import ENTRY_VARINTS, parse_counts, parse_entries
from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    logical,
    parse_chunk_header,
    physical,
    read_stream,
)
from arsrc._host.storage.open_file import OpenFile


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkList:
    """Chunks in order, of which each but the last holds as many records as any other.

    Attributes:
        num_records: Records of the file.
        group_size: Records of each chunk but the last.
        begins: i64[num_chunks], logical positions of the chunks; empty where each is one record.
        decoded_sizes: u8, u16, u32 or u64[num_chunks], bytes of all records of each.
        largest: The most bytes that one chunk takes in the file, or decoded.
    """

    num_records: int
    group_size: int
    begins: NDArray[np.int64]
    decoded_sizes: NDArray[np.unsignedinteger]
    largest: int

    @classmethod
    def parse(cls, footer: Iterable[Sequence[bytes]], end: int) -> Self:
        """Read the records of a footer, which come some at a time and stand at a logical position of `end`.

        Raises:
            LayoutError: They do not list chunks in order, in front of the footer, with all records that are counted.
        """
        columns = []
        counts = None
        for records in footer:
            if counts is None:
                counts, records = parse_counts(records[0]), records[1:]
            columns.append(_entries(records))
        begins, sizes, nums = map(np.concatenate, zip(*columns, strict=True))
        spans = np.diff(begins, append=end)
        if counts != (len(begins), int(nums.sum())):
            raise LayoutError("the footer lists other chunks than it counts")
        if not len(begins):
            return cls(0, 1, begins, sizes.astype(np.uint8), 0)
        if begins[0] < logical(FIRST_CHUNK) or spans.min() < CHUNK_HEADER_BYTES:
            raise LayoutError("chunks are out of order")
        if (nums[:-1] != nums[0]).any() or not 1 <= nums[-1] <= nums[0]:
            raise LayoutError("chunks differ in their number of records")
        largest = max(int(spans.max()), int(sizes.max()) + 8 * int(nums[0]))
        group_size = int(nums[0])
        sizes = sizes.astype(np.min_scalar_type(int(sizes.max())))
        return cls(counts[1], group_size, begins if group_size > 1 else begins[:0], sizes, largest)

    def wrong(self, file: OpenFile, positions: Sequence[int], records: Sequence[bytes]) -> list[int]:
        """Return those of some positions whose records are of another chunk than the footer says.

        Args:
            file: Where the chunks are; read where they hold more than one record.
            positions: In the file.
            records: What was read there.
        """
        at = np.array(positions, np.int64)
        if self.group_size == 1:
            lengths = np.fromiter(map(len, records), np.int64, len(records))
            return at[lengths != self.decoded_sizes[at]].tolist()
        chunks, which = np.unique(at // self.group_size, return_inverse=True)
        is_wrong = np.array([not self._is_right(file, chunk) for chunk in chunks.tolist()])
        return at[is_wrong[which]].tolist()

    def _is_right(self, file: OpenFile, chunk: int) -> bool:
        header = parse_chunk_header(read_stream(file, physical(int(self.begins[chunk])), CHUNK_HEADER_BYTES))
        num_records = min(self.group_size, self.num_records - chunk * self.group_size)
        return header.num_records == num_records and header.decoded_size == self.decoded_sizes[chunk]


def _entries(records: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (positions, decoded sizes, numbers of records) of chunks, one for each record of a footer."""
    data = np.frombuffer(b"".join(records), np.uint8)
    lengths = np.fromiter(map(len, records), np.int64, len(records))
    stops = np.cumsum(lengths)
    is_last = data < 0x80  # of a varint
    if len(records) and (
        lengths.min() < ENTRY_VARINTS
        or not is_last[stops - 1].all()
        or (np.add.reduceat(is_last, stops - lengths, dtype=np.int64) != ENTRY_VARINTS).any()
    ):
        raise LayoutError("the footer holds something else than chunks")
    chunks, _ = parse_entries(data)
    return chunks
