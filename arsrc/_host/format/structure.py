"""Checking what stands around records: whether it is what the index says, so that zeros, shifts and swaps are seen.

Of each record these are looked at: the header of its chunk and what stands between that and the records, the headers of
the blocks that hold it, and the header of the chunk behind its own, which tells whether the bytes go on to the end.
What is left are the hashes: that of a header covers only fields that are looked at here, and those of the data are what
`checksum="always"` is for.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import spans_of_values, varint_words
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    STREAM_BYTES,
    to_physical,
)
from arsrc._host.format.places import Enclosing
from arsrc._host.format.record_index import Located, RecordIndex

# Copies what begins at physical positions i64[n], of one length, to u8[n * length].
CopyEqual: TypeAlias = Callable[[NDArray[np.int64], int], NDArray[np.uint8]]

RECORDS, _PADDING = ord("r"), ord("p")
FIELD_BYTES = CHUNK_HEADER_BYTES - 8  # data_size, data_hash, kind and number of records, decoded_data_size
_MOST_BYTES = 10  # of a size
_CHUNK_BITS = 40  # no chunk takes more bytes


def damaged(copy: CopyEqual, located: Located, index: RecordIndex) -> NDArray[np.int64]:
    """Return the rows of the records around which something else stands.

    Args:
        copy: Copies bytes of the files.
        located: Where the records lie.
        index: Knows the chunks that they lie in.
    """
    chunks = index.enclosing(located)
    fields = copy(to_physical(chunks.begins + 8), FIELD_BYTES + 8).view("<i8").reshape(-1, 5)
    wrong: NDArray[np.bool_] = fields[:, 0] != chunks.ends - chunks.begins - CHUNK_HEADER_BYTES
    wrong |= fields[:, 2] != (RECORDS | chunks.counts << 8)
    wrong |= fields[:, 3] != chunks.num_bytes
    wrong |= _is_other_front(fields[:, 4], chunks)
    wrong |= is_no_other_chunk(copy(to_physical(chunks.ends + 8), FIELD_BYTES).view("<i8").reshape(-1, 4))
    wrong[_between_blocks(copy, located, chunks)] = True
    return np.flatnonzero(wrong)


def is_no_other_chunk(fields: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which fields, i64[n, 4], are not those of a chunk of uncompressed records, nor of padding, of any size."""
    kinds, counts = fields[:, 2] & 0xFF, fields[:, 2] >> 8
    front = fields[:, 0] - fields[:, 3]  # bytes in front of the records: a size takes some
    is_other: NDArray[np.bool_] = (kinds != RECORDS) | (front < counts + 2) | (front > _MOST_BYTES * (counts + 1))
    is_other |= fields[:, 0] >> _CHUNK_BITS != 0
    if is_other.any():
        is_other &= (fields[:, 2] != _PADDING) | (fields[:, 3] != 0)
    return is_other


def _is_other_front(found: NDArray[np.int64], chunks: Enclosing) -> NDArray[np.bool_]:
    """Return of which chunks the 8 bytes behind the header do not say that no compression and which size follows.

    Of several records only the first byte is compared: their sizes were when the file was indexed.
    """
    is_other: NDArray[np.bool_] = found & 0xFF != 0
    single = np.flatnonzero(np.broadcast_to(chunks.counts, found.shape) == 1)
    if len(single):
        values = np.broadcast_to(chunks.num_bytes, found.shape)[single]
        sizes = spans_of_values(values) - values - (CHUNK_HEADER_BYTES + 2)
        unused = 8 * (6 - sizes)
        is_other[single] = found[single] << unused != (varint_words(values) << 16 | sizes << 8) << unused
    return is_other


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
