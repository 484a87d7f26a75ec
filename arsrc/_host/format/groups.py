"""The index of files whose chunks hold several records, or are padded: read from the beginning of each chunk.

An uncompressed simple chunk is its header of 40 bytes, then `00 | varint len(sizes) | sizes | values`, where
`sizes` holds one varint per record. The footer says where chunks begin; all else stands in the chunks.
"""

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.careful import copy_equal, copy_records
from arsrc._host.format.footer import Chunks, decode_varints
from arsrc._host.format.layout import CHUNK_HEADER_BYTES, LayoutError, to_physical
from arsrc._host.format.places import Groups
from arsrc._host.storage.address_range import AddressRange

_HEAD_BYTES = 48  # chunk header, compression byte, and a varint of at most 5 bytes
_SLAB_RECORDS = 1 << 17
_GAP_BYTES = 1 << 16


def index_groups(area: AddressRange, chunks: Chunks, end: int) -> Groups:
    """Read where the records of a mapped file lie.

    Args:
        area: The file, mapped at the beginning of the range.
        chunks: All its chunks, as the footer lists them.
        end: Logical position of the footer.

    Raises:
        LayoutError: A chunk is compressed or transposed, or is not what the footer says.
    """
    begins = np.append(chunks.begins, end)  # i64[num_chunks + 1]
    num_chunks, group_size = len(chunks.begins), int(chunks.counts[0])
    if (chunks.counts[:-1] != group_size).any() or not 1 <= chunks.counts[-1] <= group_size:
        raise LayoutError("chunks differ in their number of records")
    ends = np.zeros_like(begins)
    within = np.empty(int(chunks.counts.sum()), np.uint32)
    step = max(1, _SLAB_RECORDS // group_size)
    for first in range(0, num_chunks, step):
        slab = slice(first, min(first + step, num_chunks))
        few = Chunks(*(column[slab] for column in chunks))
        area.will_need(to_physical(few.begins), to_physical(few.begins + _HEAD_BYTES), _GAP_BYTES)
        heads, data_sizes, num_size_bytes = _read_heads(area, few)
        ends[slab] = few.begins + CHUNK_HEADER_BYTES + data_sizes
        if (ends[slab] > begins[1:][slab]).any() or (data_sizes < 0).any() or (data_sizes >= 1 << 32).any():
            raise LayoutError("chunks overlap")
        if (CHUNK_HEADER_BYTES + data_sizes != heads + num_size_bytes + few.decoded_sizes).any():
            raise LayoutError("a chunk has another size than its records")
        values = _read_sizes(area, few.begins + heads, num_size_bytes, few)
        firsts = np.cumsum(few.counts) - few.counts  # i64[chunks of the slab], first record of each
        before = np.cumsum(values) - values  # i64[records of the slab]
        shift = heads + num_size_bytes - before[firsts]
        row = first * group_size
        within[row : row + len(values)] = before + np.repeat(shift, few.counts)
    return Groups(group_size, begins, None if (ends[:-1] == begins[1:]).all() else ends, within, len(within))


def _read_heads(area: AddressRange, chunks: Chunks) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (bytes in front of the sizes, bytes of chunk data, bytes of sizes), each i64[num_chunks]."""
    num_chunks = len(chunks.begins)
    data = copy_equal(area, to_physical(chunks.begins), _HEAD_BYTES)
    rows = data.reshape(num_chunks, _HEAD_BYTES)
    words = rows[:, :CHUNK_HEADER_BYTES].copy().view("<i8")  # i64[num_chunks, 5]
    if (words[:, 3] != (ord("r") | chunks.counts << 8)).any() or (words[:, 4] != chunks.decoded_sizes).any():
        raise LayoutError("a chunk is transposed, or is not what the footer says")
    if rows[:, CHUNK_HEADER_BYTES].any():
        raise LayoutError("a chunk is compressed")
    begins = np.arange(num_chunks) * _HEAD_BYTES + CHUNK_HEADER_BYTES + 1
    more = np.cumprod(rows[:, CHUNK_HEADER_BYTES + 1 :] >= 0x80, axis=1).sum(axis=1)  # i64[num_chunks]
    if (more > 4).any():
        raise LayoutError("a chunk has too many sizes")
    num_size_bytes = decode_varints(data, begins, begins + more)
    return CHUNK_HEADER_BYTES + 2 + more, words[:, 1], num_size_bytes


def _read_sizes(
    area: AddressRange, starts: NDArray[np.int64], num_size_bytes: NDArray[np.int64], chunks: Chunks
) -> NDArray[np.int64]:
    """Return the bytes of each record of some chunks, whose sizes begin at `starts`."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(num_size_bytes, out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    if len(copy_records(area, starts, offsets, data)):
        raise LayoutError("a chunk cannot be read")
    lasts = np.flatnonzero(data < 0x80)  # i64[num_records], last byte of each size
    behind = np.cumsum(chunks.counts)
    if len(lasts) != behind[-1] or (lasts[behind - 1] != offsets[1:] - 1).any():
        raise LayoutError("a chunk has another number of sizes than records")
    values = decode_varints(data, np.concatenate(([0], lasts[:-1] + 1)), lasts)
    if (np.add.reduceat(values, behind - chunks.counts) != chunks.decoded_sizes).any():
        raise LayoutError("a chunk has another size than its records")
    return values
