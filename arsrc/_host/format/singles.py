"""Records that each have a chunk of their own, in memory: copied or checked in few operations on arrays.

The header of such a chunk stands right in front of the record and the next one right behind, and it is of the same form
for all. What is checked is what `structure` checks.
"""

import functools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import spans_of_values, varint_words
from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, slab_rows
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    RECORDS,
    to_physical,
    varint,
)
from arsrc._host.format.structure import FIELD_BYTES, is_no_other_chunk

_IN_BLOCK = BLOCK_BYTES - 1
_HASH = CHUNK_HEADER_BYTES - FIELD_BYTES  # of a header, in front of its fields
_FRONT_BYTES = FIELD_BYTES + 8  # of a chunk from its header's fields on
_FIELDS = np.array([0, 0, RECORDS | 1 << 8, 0, 0], "<i8")
_MARGIN = BLOCK_HEADER_BYTES + _HASH + 1
_DISTANCES = struct.Struct("<2Q")  # of a block header, behind its hash
_NONE = np.zeros(0, np.int64)


class Form(NamedTuple):
    """The form of chunks that each hold one record of the same length, as it is, and nothing behind it.

    Attributes:
        length: Bytes of the record.
        head: What stands in front of it from the header's fields on, with zeros for the hash of the data.
        is_none: Returns which fields of headers, i64[n, 4], belong to no chunk of such files.
    """

    length: int
    head: bytes
    is_none: Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@functools.lru_cache(64)
def uncompressed(length: int) -> Form:
    """Return the form of chunks that are not compressed."""
    size = varint(length)
    fields = struct.pack("<4Q", 2 + len(size) + length, 0, RECORDS | 1 << 8, length)
    return Form(length, fields + bytes((0, len(size))) + size, is_no_other_chunk)


def copy_singles(
    data: NDArray[np.uint8], begins: NDArray[np.int64], form: Form, out: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Copy records of one length, with what stands around them, which is checked.

    Args:
        data: u8[range_bytes], whole files.
        begins: i64[n], physical positions of the records.
        form: That of their chunks; the length is at most `LARGE_RECORD_BYTES`.
        out: u8[>= n * length] to write into, or None for a new array.

    Returns:
        u8[n * length], the beginning of `out` where that is given, and the rows of the records around which something
        else stands.
    """
    num_rows, (length, head, is_none) = len(begins), form
    front = len(head)
    width = front + length + CHUNK_HEADER_BYTES
    result = np.empty(num_rows * length, np.uint8) if out is None else out[: num_rows * length]
    rows, around = result.reshape(num_rows, length), np.empty((num_rows, front + FIELD_BYTES), np.uint8)
    firsts, source, memory = begins - front, _from(data, width), data.data
    cut = ((firsts - _MARGIN) & _IN_BLOCK > BLOCK_BYTES - _MARGIN - width).nonzero()[0]
    places = list(zip(cut.tolist(), begins[cut].tolist(), strict=True))
    places.reverse()
    wrong = []
    slab = slab_rows(num_rows, width)
    for first in range(0, num_rows, slab):
        some = slice(first, first + slab)
        flat = source[firsts[some]].view(np.uint8)
        wide, copied = flat.reshape(-1, width), flat.data
        while places and places[-1][0] < first + slab:
            row, begin = places.pop()
            at = (row - first) * width
            if not _put_right(memory, begin, front, length, copied[at : at + width]):
                wrong.append(row)
        rows[some] = wide[:, front : front + length]
        around[some, :front], around[some, front:] = wide[:, :front], wide[:, -FIELD_BYTES:]
        del flat, wide, copied  # so that the next one takes its place in the cache
    around[:, 8:16] = around[:, front + 8 : front + 16] = 0
    expected = (head + head[:FIELD_BYTES]) * num_rows
    if around.tobytes() != expected:
        is_other = around != np.frombuffer(expected, np.uint8).reshape(around.shape)
        other = is_other[:, front:].any(axis=1) & is_none(around[:, front:].copy().view("<i8"))
        return result, np.union1d(wrong, np.flatnonzero(other | is_other[:, :front].any(axis=1))).astype(np.int64)
    return result, np.array(wrong, np.int64)


def _put_right(source: memoryview, begin: int, front: int, length: int, out: memoryview) -> bool:
    """Copy what a block begins in; return whether the block's header is what the index says.

    Args:
        source: Whole files.
        begin: Where the record begins.
        front: Bytes in front of it that are copied.
        length: Bytes of the record.
        out: What to copy: these, and the header behind.
    """
    gap = BLOCK_HEADER_BYTES
    first = begin - front - gap * (begin & _IN_BLOCK < front + gap)
    in_block = first & _IN_BLOCK
    near = BLOCK_BYTES - in_block
    if near < len(out):
        out[:near] = source[first : first + near]
        out[near:] = source[first + near + gap : first + len(out) + gap]
    else:  # it begins in front of all
        near, gap = -in_block, 0
    if near >= front + length:  # it begins behind the chunk
        return True
    before = near + _HASH + BLOCK_HEADER_BYTES * (in_block < _MARGIN)
    return _DISTANCES.unpack_from(source, first + near + 8) == (before, front + length - near + gap)


@functools.cache
def _front_words() -> NDArray[np.int64]:
    """Return what stands between header and record, by its length, as the upper bytes of a number."""
    lengths = np.arange(LARGE_RECORD_BYTES + 1)
    sizes = spans_of_values(lengths) - lengths - CHUNK_HEADER_BYTES - 2
    words: NDArray[np.int64] = (varint_words(lengths) << 16 | sizes << 8) << 8 * (6 - sizes)
    return words


def damaged_singles(
    data: NDArray[np.uint8], starts: NDArray[np.int64], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of the records around which something else stands.

    Args:
        data: u8[range_bytes], whole files.
        starts: i64[n], logical positions of the records.
        begins: i64[n], physical ones.
        lengths: i64[n], bytes of each, at most `LARGE_RECORD_BYTES`.
    """
    heads = spans_of_values(lengths) - lengths
    firsts = begins - heads
    fields = _from(data, _FRONT_BYTES)[firsts + _HASH].view("<i8").reshape(-1, 5)
    # In front of the record, or inside of it, a block begins.
    margin = BLOCK_HEADER_BYTES + 1
    cut = ((firsts - margin) & _IN_BLOCK > BLOCK_BYTES - margin - heads - lengths).nonzero()[0]
    wrong = _across_blocks(data, cut, begins, firsts, lengths, fields) if len(cut) else _NONE
    # The same for all now, so that one comparison does.
    fields[:, 0] -= heads + (lengths - CHUNK_HEADER_BYTES)
    fields[:, 1] = 0
    fields[:, 3] -= lengths
    fields[:, 4] <<= 8 * (CHUNK_HEADER_BYTES + 8 - heads)
    fields[:, 4] -= _front_words()[lengths]
    behind = gather_equal(data, to_physical(starts + lengths + _HASH), FIELD_BYTES, None).view("<i8").reshape(-1, 4)
    other = is_no_other_chunk(behind)
    if fields.tobytes() != _FIELDS.tobytes() * len(begins) or other.any():
        return np.union1d(wrong, np.flatnonzero((fields != _FIELDS).any(axis=1) | other))
    return wrong


def _across_blocks(
    data: NDArray[np.uint8],
    cut: NDArray[np.int64],
    begins: NDArray[np.int64],
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    fields: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Put `fields` of some rows right, and return those of them with a wrong block header."""
    begin, first, end = begins[cut], firsts[cut], begins[cut] + lengths[cut]
    is_early = begin & _IN_BLOCK <= begin - first + BLOCK_HEADER_BYTES  # the block begins in front of the record
    block = (begin & ~_IN_BLOCK) + BLOCK_BYTES * ~is_early
    first -= BLOCK_HEADER_BYTES * is_early
    end += BLOCK_HEADER_BYTES * ~is_early
    if is_early.any():
        places = first[is_early, None] + np.arange(_HASH, _HASH + _FRONT_BYTES)
        places += BLOCK_HEADER_BYTES * (places >= block[is_early, None])
        fields[cut[is_early]] = data[places].view("<i8")
    distances = _from(data, 16)[block + 8].view("<i8").reshape(-1, 2)
    wrong: NDArray[np.bool_] = (distances[:, 0] != block - first) | (distances[:, 1] != end - block)
    return cut[wrong & (end - block > BLOCK_HEADER_BYTES)]  # else it begins behind the chunk


def _from(data: NDArray[np.uint8], num_bytes: int) -> Any:
    """Return so many bytes from every byte on."""
    return np.ndarray((len(data) - num_bytes + 1,), np.dtype((np.void, num_bytes)), data, strides=(1,))
