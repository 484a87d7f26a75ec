"""Records that each have a chunk of their own, in memory: copied or checked in few operations on arrays.

The header of such a chunk stands right in front of the record and the next one right behind, and it is of the same form
for all. What is checked is what `structure` checks.
"""

import functools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import spans_of_values, varint_words
from arsrc._host.format.gather import LARGE_RECORD_BYTES, slab_rows
from arsrc._host.format.layout import BLOCK_BYTES, BLOCK_HEADER_BYTES, CHUNK_HEADER_BYTES, varint
from arsrc._host.format.structure import FIELD_BYTES, KIND, RECORDS

_IN_BLOCK = BLOCK_BYTES - 1
_MARGIN = BLOCK_HEADER_BYTES + 1
_HASH = CHUNK_HEADER_BYTES - FIELD_BYTES  # of a header, in front of its fields
_FRONT_BYTES = FIELD_BYTES + 8  # of a chunk from its header's fields on
_FIELDS = np.array([0, 0, RECORDS | 1 << 8, 0, 0], "<i8")
_DISTANCES = struct.Struct("<2Q")  # of a block header, behind its hash
_NONE = np.zeros(0, np.int64)


@functools.lru_cache(64)
def _head(length: int) -> bytes:
    """Return what stands in front of a record from the header's fields on, with zeros for the hash of the data."""
    size = varint(length)
    fields = struct.pack("<4Q", 2 + len(size) + length, 0, RECORDS | 1 << 8, length)
    return fields + bytes((0, len(size))) + size


def copy_singles(
    data: NDArray[np.uint8], begins: NDArray[np.int64], length: int, out: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Copy records of one length, with what stands around them, which is checked.

    Args:
        data: u8[range_bytes], whole files.
        begins: i64[n], physical positions of the records.
        length: Bytes of each record, at most `LARGE_RECORD_BYTES`.
        out: u8[>= n * length] to write into, or None for a new array.

    Returns:
        u8[n * length], the beginning of `out` where that is given, and the rows of the records around which something
        else stands.
    """
    num_rows, head = len(begins), _head(length)
    front = len(head)
    width = front + length + KIND + 1
    result = np.empty(num_rows * length, np.uint8) if out is None else out[: num_rows * length]
    rows, fronts = result.reshape(num_rows, length), np.empty((num_rows, front), np.uint8)
    kinds = np.empty(num_rows, np.uint8)
    firsts, source = begins - front, _from(data, width)
    slab = slab_rows(num_rows, width)
    for first in range(0, num_rows, slab):
        some = slice(first, first + slab)
        wide = source[firsts[some]].view(np.uint8).reshape(-1, width)
        rows[some], fronts[some], kinds[some] = wide[:, front : front + length], wide[:, :front], wide[:, -1]
        del wide  # so that the next one takes its place in the cache
    # As if no block began inside of them; where one does, what lies behind it is put right.
    margin = BLOCK_HEADER_BYTES + _HASH + 1
    cut = ((firsts - margin) & _IN_BLOCK > BLOCK_BYTES - margin - width).nonzero()[0]
    wrong, source_bytes, out_bytes, kind_bytes = [], data.data, result.data, kinds.data
    for row, begin in zip(cut.tolist(), begins[cut].tolist(), strict=True):
        in_block = begin & _IN_BLOCK
        first, block, end = begin - front, begin - in_block + BLOCK_BYTES, begin + length
        if in_block < front + margin:  # it begins in front of the record
            block -= BLOCK_BYTES
            if block > first - BLOCK_HEADER_BYTES:
                first -= BLOCK_HEADER_BYTES
                fronts[row, : block - first] = data[first:block]
        elif end > block:
            at, end = row * length - begin, end + BLOCK_HEADER_BYTES
            out_bytes[at + block : at + begin + length] = source_bytes[block + BLOCK_HEADER_BYTES : end]
            kind_bytes[row] = source_bytes[end + KIND]
        else:
            kind_bytes[row] = source_bytes[end + BLOCK_HEADER_BYTES + KIND]
            continue
        before = block - first + _HASH + BLOCK_HEADER_BYTES * (first & _IN_BLOCK < margin)
        if _DISTANCES.unpack_from(source_bytes, block + 8) != (before, end - block):
            wrong.append(row)
    fronts[:, 8:16] = 0
    if fronts.tobytes() != head * num_rows or kinds.tobytes() != bytes((RECORDS,)) * num_rows:
        others = (fronts != np.frombuffer(head, np.uint8)).any(axis=1) | (kinds != RECORDS)
        return result, np.union1d(wrong, np.flatnonzero(others)).astype(np.int64)
    return result, np.array(wrong, np.int64)


@functools.cache
def _front_words() -> NDArray[np.int64]:
    """Return what stands between header and record, by its length, as the upper bytes of a number."""
    lengths = np.arange(LARGE_RECORD_BYTES + 1)
    sizes = spans_of_values(lengths) - lengths - CHUNK_HEADER_BYTES - 2
    words: NDArray[np.int64] = (varint_words(lengths) << 16 | sizes << 8) << 8 * (6 - sizes)
    return words


def damaged_singles(
    data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of the records around which something else stands.

    Args:
        data: u8[range_bytes], whole files.
        begins: i64[n], physical positions of the records.
        lengths: i64[n], bytes of each, at most `LARGE_RECORD_BYTES`.
    """
    heads = spans_of_values(lengths) - lengths
    firsts, behind = begins - heads, begins + (lengths + KIND)
    fields = _from(data, _FRONT_BYTES)[firsts + _HASH].view("<i8").reshape(-1, 5)
    # In front of these, or before the kind of the chunk behind, a block begins.
    cut = ((firsts - _MARGIN) & _IN_BLOCK > BLOCK_BYTES - 2 * _MARGIN - heads - lengths).nonzero()[0]
    wrong = _across_blocks(data, cut, begins, firsts, behind, fields) if len(cut) else _NONE
    # The same for all now, so that one comparison does.
    fields[:, 0] -= heads + (lengths - CHUNK_HEADER_BYTES)
    fields[:, 1] = 0
    fields[:, 3] -= lengths
    fields[:, 4] <<= 8 * (CHUNK_HEADER_BYTES + 8 - heads)
    fields[:, 4] -= _front_words()[lengths]
    kinds = data[behind]
    if fields.tobytes() != _FIELDS.tobytes() * len(begins) or kinds.tobytes() != bytes((RECORDS,)) * len(begins):
        return np.union1d(wrong, np.flatnonzero((fields != _FIELDS).any(axis=1) | (kinds != RECORDS)))
    return wrong


def _across_blocks(
    data: NDArray[np.uint8],
    cut: NDArray[np.int64],
    begins: NDArray[np.int64],
    firsts: NDArray[np.int64],
    behind: NDArray[np.int64],
    fields: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Put `behind` and `fields` of some rows right, and return those of them with a wrong block header."""
    begin, first = begins[cut], firsts[cut]
    is_early = begin & _IN_BLOCK <= begin - first + BLOCK_HEADER_BYTES  # the block begins in front of the record
    block = (begin & ~_IN_BLOCK) + BLOCK_BYTES * ~is_early
    first -= BLOCK_HEADER_BYTES * is_early
    behind[cut] += BLOCK_HEADER_BYTES * ~is_early
    if is_early.any():
        places = first[is_early, None] + np.arange(_HASH, _HASH + _FRONT_BYTES)
        places += BLOCK_HEADER_BYTES * (places >= block[is_early, None])
        fields[cut[is_early]] = data[places].view("<i8")
    after = behind[cut] - KIND - block
    distances = _from(data, 16)[block + 8].view("<i8").reshape(-1, 2)
    wrong: NDArray[np.bool_] = (distances[:, 0] != block - first) | (distances[:, 1] != after)
    return cut[wrong & (is_early | (after > BLOCK_HEADER_BYTES))]  # else it begins behind the chunk


def _from(data: NDArray[np.uint8], num_bytes: int) -> Any:
    """Return so many bytes from every byte on."""
    return np.ndarray((len(data) - num_bytes + 1,), np.dtype((np.void, num_bytes)), data, strides=(1,))
