"""Checking what stands around records: whether it is what the index says, so that zeros, shifts and swaps are seen.

Of each record these are looked at: the header of its chunk, the headers of the blocks that hold it, and the kind of the
chunk behind its own, which tells whether the bytes go on to the end. What is left are the hashes: that of a header
covers only fields that are compared here, and those of the data are what `checksum="always"` is for.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import spans_of_values
from arsrc._host.format.gather import gather_equal
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    STREAM_BYTES,
    to_physical,
    varint_size,
)
from arsrc._host.format.numbering import Column
from arsrc._host.format.places import Enclosing
from arsrc._host.format.record_index import Located, RecordIndex

# Copies what begins at physical positions i64[n], of one length, to u8[n * length].
CopyEqual: TypeAlias = Callable[[NDArray[np.int64], int], NDArray[np.uint8]]

_RECORDS, _PADDING = ord("r"), ord("p")
_KIND = 24  # where it stands in a chunk header
_FIELD_BYTES = CHUNK_HEADER_BYTES - 8  # data_size, data_hash, kind and number of records, decoded_data_size
_SINGLE = np.array([0, 0, _RECORDS | 1 << 8, 0], "<i8")
_FIRST = BLOCK_HEADER_BYTES + 1


def damaged_in_memory(data: NDArray[np.uint8], located: Located, index: RecordIndex) -> NDArray[np.int64]:
    """Return what `damaged` does, for files in memory: most single records need none of its arithmetic.

    Args:
        data: u8[range_bytes], whole files.
        located: Where the records lie.
        index: Knows the chunks that they lie in.
    """

    def copy(begins: NDArray[np.int64], num_bytes: int) -> NDArray[np.uint8]:
        return gather_equal(data, begins, num_bytes, None)

    begins, lengths = located.begins, located.lengths
    if not index.is_single or not len(begins):
        return damaged(copy, located, index)
    if isinstance(lengths, int):
        heads: Column = CHUNK_HEADER_BYTES + 2 + varint_size(lengths)
    else:
        heads = spans_of_values(lengths) - lengths
    # No block begins between the chunk's first byte and the kind of the next one, but for these.
    behind_block = (begins - (heads + _FIRST)) & (BLOCK_BYTES - 1)
    near = np.flatnonzero(behind_block > BLOCK_BYTES - 2 * _FIRST - heads - lengths)
    fields = _windows(data)[begins - (heads - 8)].view("<i8").reshape(-1, 4)
    kinds = data[begins + (lengths + _KIND)]
    # The same for all records now, so that one comparison does.
    fields[:, 0] -= heads + (lengths - CHUNK_HEADER_BYTES)
    fields[:, 1] = 0
    fields[:, 3] -= lengths
    fields[near], kinds[near] = _SINGLE, _RECORDS
    wrong = near[damaged(copy, located.at(near), index)]
    if fields.tobytes() == _SINGLE.tobytes() * len(begins) and kinds.tobytes() == bytes((_RECORDS,)) * len(begins):
        return wrong
    return np.union1d(wrong, np.flatnonzero((fields != _SINGLE).any(axis=1) | (kinds != _RECORDS)))


def _windows(data: NDArray[np.uint8]) -> Any:
    """Return what chunk headers hold behind their hash, as one element at every byte."""
    return np.ndarray((len(data) - _FIELD_BYTES + 1,), np.dtype((np.void, _FIELD_BYTES)), data, strides=(1,))


def damaged(copy: CopyEqual, located: Located, index: RecordIndex) -> NDArray[np.int64]:
    """Return the rows of the records around which something else stands.

    Args:
        copy: Copies bytes of the files.
        located: Where the records lie.
        index: Knows the chunks that they lie in.
    """
    chunks = index.enclosing(located)
    fields = copy(to_physical(chunks.begins + 8), _FIELD_BYTES).view("<i8").reshape(-1, 4)
    wrong: NDArray[np.bool_] = fields[:, 0] != chunks.ends - chunks.begins - CHUNK_HEADER_BYTES
    wrong |= fields[:, 2] != (_RECORDS | chunks.counts << 8)
    wrong |= fields[:, 3] != chunks.num_bytes
    behind = copy(to_physical(chunks.ends + _KIND), 1)
    is_other = behind != _RECORDS
    if is_other.any():
        wrong |= is_other & (behind != _PADDING)
    wrong[_between_blocks(copy, located, chunks)] = True
    return np.flatnonzero(wrong)


def _between_blocks(copy: CopyEqual, located: Located, chunks: Enclosing) -> NDArray[np.int64]:
    """Return the rows of the records with a wrong block header: inside of them, or inside of their chunk nearby."""
    firsts = np.maximum(located.starts // STREAM_BYTES, -(-chunks.begins // STREAM_BYTES))
    counts = (located.starts + (located.lengths - 1)) // STREAM_BYTES + 1 - firsts
    cut = np.flatnonzero(counts > 0)
    if not len(cut):
        return cut
    counts = counts[cut]
    rows = np.repeat(cut, counts)  # i64[num_headers]
    blocks = np.arange(len(rows)) + np.repeat(firsts[cut] - np.cumsum(counts) + counts, counts)
    at = blocks * BLOCK_BYTES
    distances = copy(at + 8, BLOCK_HEADER_BYTES - 8).view("<i8").reshape(-1, 2)
    wrong = distances[:, 0] != at - _boundary(chunks.begins[rows])
    wrong |= distances[:, 1] != _boundary(chunks.ends[rows]) - at
    return rows[wrong]


def _boundary(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the physical positions of chunk boundaries: where a block begins, in front of its header."""
    return positions - BLOCK_HEADER_BYTES * (-positions // STREAM_BYTES)
