"""What stands in compressed chunks, and the records that it decodes to.

Behind a chunk's header of 40 bytes: `letter | varint n | n bytes: sizes | varint num_bytes | stream of all records`,
where `sizes` is `varint num_bytes | stream of one varint per record`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import decode_varints, varint_words
from arsrc._host.format.frames import MOST_BYTES
from arsrc._host.format.layout import CHUNK_HEADER_BYTES, RECORDS, LayoutError, parse_varint
from arsrc._host.format.places import Enclosing
from arsrc._host.format.streams import SNAPPY, ZSTD, decode
from arsrc.record_batch import RecordBatch

FRONT_BYTES = 80  # of a chunk: what stands in front of a record that has it alone

_MAGIC = 0xFD2FB528  # of a zstd frame
_SHORT, _TWO_BYTES, _STREAMED = 0x20, 0x60, 0x00  # frames: how they say their size, if they do
_SIZE_AT = {ZSTD: 52, SNAPPY: 45}  # where the size of a lone record stands
_MOST_SIZE_BYTES = 4  # that it may take here: records of 256 MiB and more are for others
_MOST_VARINT_BYTES = 10


class Fronts(NamedTuple):
    """What the beginnings of chunks say; positions are counted from there.

    Attributes:
        ends: i64[n], behind the data.
        streams: i64[n], where the stream of a lone record begins.
        is_stored: bool[n], whether a lone record stands at the end as it is.
        is_other: bool[n], whether something else stands there than the footer says, or than is known here.
    """

    ends: NDArray[np.int64]
    streams: NDArray[np.int64]
    is_stored: NDArray[np.bool_]
    is_other: NDArray[np.bool_]


def read_headers(fronts: NDArray[np.uint8], chunks: Enclosing) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where the data of chunks ends, counted from their begin, and which are not what the footer says.

    Args:
        fronts: u8[n, at least 40]
        chunks: What the footer says.
    """
    words = np.ascontiguousarray(fronts[:, :CHUNK_HEADER_BYTES]).view("<i8")
    ends = words[:, 1] + CHUNK_HEADER_BYTES
    is_other: NDArray[np.bool_] = words[:, 3] != (RECORDS | chunks.counts << 8)
    is_other |= words[:, 4] != chunks.num_bytes
    is_other |= (ends < CHUNK_HEADER_BYTES) | (ends > chunks.ends - chunks.begins)
    return ends, is_other


def read_fronts(fronts: NDArray[np.uint8], chunks: Enclosing, letter: int) -> Fronts:
    """Read the beginnings of chunks that each hold one record.

    Args:
        fronts: u8[n, FRONT_BYTES]
        chunks: What the footer says.
        letter: Of their compression: zstd or snappy.
    """
    lengths = np.asarray(chunks.num_bytes)
    if (lengths == lengths[0]).all():
        lengths = lengths[:1]  # so that what follows from them is computed once
    ends, is_other = read_headers(fronts, chunks)
    is_long = lengths >> 7 * _MOST_SIZE_BYTES != 0
    num_size_bytes = np.ones_like(lengths)
    for power in range(1, _MOST_SIZE_BYTES):
        num_size_bytes += lengths >= 1 << 7 * power
    # All but the record's own stream is the same for records of one length.
    size_at = _SIZE_AT[letter]
    words = fronts[:, CHUNK_HEADER_BYTES : size_at + 8].copy()
    is_other |= is_long | (_are_no_zstd if letter == ZSTD else _are_no_snappy)(words, num_size_bytes)
    sizes, unused = varint_words(lengths), 64 - 16 * num_size_bytes
    said = words[:, size_at - CHUNK_HEADER_BYTES :].copy().view("<i8")[:, 0]
    is_other |= said << unused != (sizes | sizes << 8 * num_size_bytes) << unused
    streams = np.broadcast_to(size_at + 2 * num_size_bytes, len(fronts))
    is_other |= (streams >= ends) | (lengths > MOST_BYTES * (ends - streams))
    if letter != ZSTD:
        return Fronts(ends, streams, np.zeros(len(fronts), np.bool_), is_other)
    is_stored = ends == streams + lengths + np.where((lengths >> 8 == 0) | (lengths >> 12 != 0), 9, 10)
    if is_stored.any():
        is_stored &= _are_stored(fronts, streams, lengths, ends)
    return Fronts(ends, streams, is_stored, is_other)


def _are_no_zstd(words: NDArray[np.uint8], num_size_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which data begins in another way than with so many bytes of sizes, in a frame of one raw block."""
    expected = _MAGIC << 24 | ZSTD | num_size_bytes + 10 << 8 | num_size_bytes << 16
    are_other: NDArray[np.bool_] = words[:, :8].copy().view("<i8")[:, 0] != expected | _SHORT << 56
    are_other |= words[:, 8:12].copy().view("<i4")[:, 0] != num_size_bytes | 1 << 8 | num_size_bytes << 11
    return are_other


def _are_no_snappy(words: NDArray[np.uint8], num_size_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which data begins in another way than with so many bytes of sizes, as one literal."""
    expected = SNAPPY | num_size_bytes + 3 << 8 | num_size_bytes << 16 | num_size_bytes << 24 | num_size_bytes - 1 << 34
    are_other: NDArray[np.bool_] = (words[:, :8].copy().view("<i8")[:, 0] ^ expected) << 24 != 0
    return are_other


def _are_stored(
    fronts: NDArray[np.uint8], streams: NDArray[np.int64], lengths: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which streams are frames of one block that was not compressed, and nothing behind it."""
    starts = np.ndarray((fronts.size - 7,), np.dtype((np.void, 8)), fronts, strides=(1,))
    rows = np.arange(len(fronts)) * fronts.shape[1] + streams
    heads = starts[rows].view("<i8")
    kinds, said = heads >> 32 & 0xFF, heads >> 40 & 0xFFFF
    is_said = (kinds == _STREAMED) | ((kinds == _SHORT) & (said & 0xFF == lengths))
    is_said |= (kinds == _TWO_BYTES) & (said + 256 == lengths)
    num_bytes = 6 + (kinds == _TWO_BYTES)  # of the frame's header
    blocks = starts[rows + num_bytes].view("<i8") & 0xFFFFFF
    are_stored: NDArray[np.bool_] = is_said & (heads & 0xFFFFFFFF == _MAGIC) & (blocks == (lengths << 3 | 1))
    are_stored &= ends == streams + num_bytes + 3 + lengths
    return are_stored


def decode_chunk(data: memoryview, letter: int, count: int, num_bytes: int) -> RecordBatch:
    """Return the records of a chunk.

    Args:
        data: The chunk's data.
        letter: Of the compression.
        count: How many records there are.
        num_bytes: How many bytes they take together.

    Raises:
        LayoutError: Something else stands there.
    """
    if data[:1] != bytes((letter,)):
        raise LayoutError("a chunk is compressed in another way")
    sizes_bytes, sizes_at = _varint(data, 1)
    values_at = sizes_at + sizes_bytes
    num_size_bytes, stream = _varint(data, sizes_at)
    said, values = _varint(data, values_at)
    if said != num_bytes or not count <= num_size_bytes <= _MOST_VARINT_BYTES * count or values > len(data):
        raise LayoutError("a chunk has another size than the footer says")
    sizes = np.frombuffer(decode(letter, data[stream:values_at], num_size_bytes), np.uint8)
    lasts = (sizes < 0x80).nonzero()[0]
    if len(lasts) != count or lasts[-1] != len(sizes) - 1:
        raise LayoutError("a chunk has another number of sizes than records")
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(decode_varints(sizes, np.concatenate(([0], lasts[:-1] + 1)), lasts), out=offsets[1:])
    if offsets[-1] != num_bytes or offsets.max() != num_bytes:  # a sum that is too large begins anew
        raise LayoutError("a chunk has another size than its records")
    return RecordBatch(np.frombuffer(decode(letter, data[values:], num_bytes), np.uint8), offsets)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value, num_bytes = parse_varint(bytes(data[position : position + _MOST_VARINT_BYTES]), 0)
    return value, position + num_bytes
