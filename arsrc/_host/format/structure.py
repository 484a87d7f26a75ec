"""Checking what stands around records: whether it is what the index says, so that zeros, shifts and swaps are seen.

Of each record these are looked at: the header of its chunk and what stands between that and the records, the headers of
the blocks that hold it, and the header of the chunk behind its own, which tells whether the bytes go on to the end.
What is left are the hashes of the data, which are what `checksum="always"` is for: a header's own covers besides them
only fields that are looked at here.
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
    PADDING,
    RECORDS,
    STREAM_BYTES,
    to_physical,
)
from arsrc._host.format.places import Enclosing
from arsrc._host.format.record_index import Located, RecordIndex

# Copies what begins at physical positions i64[n], of one length, to u8[n * length].
CopyEqual: TypeAlias = Callable[[NDArray[np.int64], int], NDArray[np.uint8]]

FIELD_BYTES = CHUNK_HEADER_BYTES - 8  # data_size, data_hash, kind and number of records, decoded_data_size
_IN_BLOCK = BLOCK_BYTES - 1
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
    begins, ends = to_physical(chunks.begins), to_physical(chunks.ends)
    fields = copy(_fields_at(begins), FIELD_BYTES + 8).view("<i8").reshape(-1, 5)
    behind = copy(_fields_at(ends), FIELD_BYTES).view("<i8").reshape(-1, 4)
    wrong: NDArray[np.bool_] = fields[:, 0] != chunks.ends - chunks.begins - CHUNK_HEADER_BYTES
    wrong |= fields[:, 2] != (RECORDS | chunks.counts << 8)
    wrong |= fields[:, 3] != chunks.num_bytes
    wrong |= _is_other_front(fields[:, 4], chunks)
    unlike = (behind[:, 0] != fields[:, 0]) | (behind[:, 2] != fields[:, 2]) | (behind[:, 3] != fields[:, 3])
    if unlike.any():  # else the chunks behind are as the records' own, of which all was compared
        wrong[unlike] |= is_no_other_chunk(behind[unlike])
    wrong[wrong_block_headers(copy, located, begins, ends)] = True
    return np.flatnonzero(wrong)


def _fields_at(headers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the physical positions of the fields of chunk headers: behind a hash, in which a block may begin."""
    return headers + 8 + BLOCK_HEADER_BYTES * (headers & _IN_BLOCK >= BLOCK_BYTES - 8)


def is_no_other_chunk(fields: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which fields, i64[n, 4], are not those of a chunk of uncompressed records, nor of padding, of any size."""
    kinds, counts = fields[:, 2] & 0xFF, fields[:, 2] >> 8
    front = fields[:, 0] - fields[:, 3]  # bytes in front of the records: a size takes some
    is_other: NDArray[np.bool_] = (kinds != RECORDS) | (front < counts + 2) | (front > _MOST_BYTES * (counts + 1))
    is_other |= fields[:, 0] >> _CHUNK_BITS != 0
    if is_other.any():
        is_other &= (fields[:, 2] != PADDING) | (fields[:, 3] != 0)
    return is_other


def _is_other_front(found: NDArray[np.int64], chunks: Enclosing) -> NDArray[np.bool_]:
    """Return of which chunks the 8 bytes behind the header do not say that no compression and which size follows.

    Of several records only the first byte is compared: their sizes were when the file was indexed.
    """
    is_other: NDArray[np.bool_] = found & 0xFF != 0
    is_single = np.equal(chunks.counts, 1)
    if is_single.any():
        single = np.flatnonzero(np.broadcast_to(is_single, found.shape))
        values = np.broadcast_to(chunks.num_bytes, found.shape)[single]
        sizes = spans_of_values(values) - values - (CHUNK_HEADER_BYTES + 2)
        unused = 8 * (6 - sizes)
        is_other[single] = found[single] << unused != (varint_words(values) << 16 | sizes << 8) << unused
    return is_other


def is_nothing_behind(copy: CopyEqual, ends: NDArray[np.int64], is_padded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return behind which chunks stands no header of records, or of padding where there should be some.

    Args:
        copy: Copies bytes of the files.
        ends: i64[n], physical positions behind the chunks.
        is_padded: bool[n], whether padding follows.
    """
    fields = copy(_fields_at(ends), FIELD_BYTES).view("<i8").reshape(-1, 4)
    return is_no_chunk(fields) | (is_padded & (fields[:, 2] != PADDING))


def is_no_chunk(fields: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which fields, i64[n, 4], are not those of a chunk of records, nor of padding, compressed or not."""
    kinds = fields[:, 2] & 0xFF
    is_none: NDArray[np.bool_] = (kinds != RECORDS) | (fields[:, 0] >> _CHUNK_BITS != 0)
    if is_none.any():
        is_none &= (fields[:, 2] != PADDING) | (fields[:, 3] != 0)
    return is_none


def wrong_block_headers(
    copy: CopyEqual, located: Located, begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of the records with a wrong block header: inside of them, or inside of their chunk nearby.

    Args:
        copy: Copies bytes of the files.
        located: Where the records lie.
        begins: i64[n], physical positions of their chunks.
        ends: i64[n], of the chunks behind these.
    """
    firsts = np.maximum(
        located.begins // BLOCK_BYTES, begins // BLOCK_BYTES + (begins & _IN_BLOCK != BLOCK_HEADER_BYTES)
    )
    counts = (located.starts + (located.lengths - 1)) // STREAM_BYTES + 1 - firsts
    rows = np.flatnonzero(counts > 0)  # i64[num_headers]
    if not len(rows):
        return rows
    counts, firsts = counts[rows], firsts[rows]
    if counts.max() > 1:
        firsts = np.repeat(firsts - np.cumsum(counts) + counts, counts)
        firsts += np.arange(len(firsts))
        rows = np.repeat(rows, counts)
    at = firsts * BLOCK_BYTES
    distances = copy(at + 8, BLOCK_HEADER_BYTES - 8).view("<i8").reshape(-1, 2)
    wrong = distances[:, 0] != at - _boundary(begins[rows])
    wrong |= distances[:, 1] != _boundary(ends[rows]) - at
    return rows[wrong]


def _boundary(headers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the physical positions of chunk boundaries: where a block begins, in front of its header."""
    return headers - BLOCK_HEADER_BYTES * (headers & _IN_BLOCK == BLOCK_HEADER_BYTES)
