"""The chunks of a file that array_record's reader reads, as the file's footer lists them.

That reader believes its footer, whatever stands there: it reserves as many bytes as lie between two positions, looks
for records in chunks that are not there, and so ends the process.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import Chunks, parse_counts, parse_entries
from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    logical,
    read_stream,
    to_physical,
)
from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.stamps import FileStamp

_SLAB_RECORDS = 1 << 13  # the arrays of one slab stay in the cache


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkList:
    """Chunks in order, of which each but the last holds as many records as any other.

    Attributes:
        num_records: Records of the file.
        group_size: Records of each chunk but the last.
        begins: i64[num_chunks], logical positions of the chunks; of none where each is one record.
        decoded_sizes: u8, u16, u32 or u64[num_chunks], bytes of all records of each.
        are_right: bool[num_chunks], whether their headers were looked at, and say the same; likewise.
        largest: The most bytes that one chunk takes in the file, or decoded.
    """

    num_records: int
    group_size: int
    begins: NDArray[np.int64]
    decoded_sizes: NDArray[np.integer]
    are_right: NDArray[np.bool_]
    largest: int

    @classmethod
    def parse(cls, footer: Iterable[Sequence[bytes]], end: int) -> Self:
        """Read the records of a footer, which come some at a time and stand at a logical position of `end`.

        Raises:
            LayoutError: They do not list chunks in order, in front of the footer, with all records that are counted.
        """
        slabs, num_chunks, num_records = [], -1, 0
        for records in footer:
            first = num_chunks < 0  # the counts
            if first:
                num_chunks, num_records, _ = parse_counts(records[0])
            slabs += [_entries(records[at : at + _SLAB_RECORDS]) for at in range(first, len(records), _SLAB_RECORDS)]
        begins, sizes, counts = map(np.concatenate, zip(*slabs, strict=True)) if slabs else _entries([])
        if (num_chunks, num_records) != (len(begins), int(counts.sum())):
            raise LayoutError("the footer lists other chunks than it counts")
        spans = np.diff(begins, append=end)
        if num_chunks and (begins[0] < logical(FIRST_CHUNK) or spans.min() < CHUNK_HEADER_BYTES):
            raise LayoutError("chunks are out of order")
        group_size = int(counts[0]) if num_chunks else 1
        if num_chunks and ((counts[:-1] != group_size).any() or not 1 <= counts[-1] <= group_size <= num_records):
            raise LayoutError("chunks differ in their number of records")
        most = int(sizes.max(initial=0))
        largest = max(int(spans.max(initial=0)), most + 8 * group_size)  # where each record ends
        known = begins if group_size > 1 else begins[:0]
        return cls(
            num_records,
            group_size,
            known,
            sizes.astype(np.min_scalar_type(most)),
            np.zeros(len(known), np.bool_),
            largest,
        )

    def wrong(self, path: str, stamp: FileStamp, positions: Sequence[int], records: Sequence[bytes]) -> list[int]:
        """Return those of some positions whose records are of another chunk than the footer says.

        Args:
            path: The file; read where chunks hold more than one record, and it is still there.
            stamp: What it was.
            positions: In the file.
            records: What was read there.
        """
        at = np.array(positions, np.int64)
        if self.group_size == 1:
            lengths = np.fromiter(map(len, records), np.int64, len(records))
            is_wrong = lengths != self.decoded_sizes[at]
        else:
            chunks = at // self.group_size
            unknown = np.unique(chunks[~self.are_right[chunks]])
            is_wrong = np.isin(chunks, self._look(path, stamp, unknown)) if len(unknown) else np.zeros(len(at), bool)
        found: list[int] = at[is_wrong].tolist()
        return found

    def _look(self, path: str, stamp: FileStamp, chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compare the headers of chunks with what the footer says; return those that say something else."""
        with contextlib.suppress(FileNotFoundError), contextlib.closing(OpenFile(path)) as file:
            if file.stamp() != stamp:
                return chunks[:0]
            begins = to_physical(self.begins[chunks]).tolist()
            headers = b"".join(_header(file, begin) for begin in begins)
            words = np.frombuffer(headers, "<u8").reshape(-1, CHUNK_HEADER_BYTES // 8)
            counts = np.minimum(self.num_records - chunks * self.group_size, self.group_size)
            is_right = (words[:, 3] >> 8 == counts) & (words[:, 4] == self.decoded_sizes[chunks])
            self.are_right[chunks] = is_right
            return chunks[~is_right]
        return chunks[:0]


def _header(file: OpenFile, begin: int) -> bytes:
    try:
        return read_stream(file, begin, CHUNK_HEADER_BYTES)
    except LayoutError:
        return bytes(CHUNK_HEADER_BYTES)


def _entries(records: Sequence[bytes]) -> Chunks:
    """Return the chunks that some records of a footer stand for, one each."""
    chunks, stops = parse_entries(np.frombuffer(b"".join(records), np.uint8))
    # Each record is one entry: that reader takes what is missing in one for 0, and what is there twice as said last.
    if not np.array_equal(stops, np.cumsum(np.fromiter(map(len, records), np.int64, len(records)))):
        raise LayoutError("the footer holds something else than chunks")
    return chunks
