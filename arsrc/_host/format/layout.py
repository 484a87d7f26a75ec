"""Where things stand in an ArrayRecord file: blocks, chunk headers, postscript.

A file is a stream of chunks, cut into blocks of 64 KiB that each begin with a 24-byte block header. A
*physical* position is an offset in the file; a *logical* one is an offset in the stream without block
headers, in which chunks lie end to end. Format: riegeli's `doc/riegeli_records_file_format.md` and
array_record's `layout.proto`.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage.open_file import OpenFile

BLOCK_BYTES = 1 << 16
BLOCK_HEADER_BYTES = 24
STREAM_BYTES = BLOCK_BYTES - BLOCK_HEADER_BYTES  # bytes of the stream in one block
CHUNK_HEADER_BYTES = 40
FIRST_CHUNK = 64  # physical: behind the block header and the signature, a chunk without data

RECORDS, PADDING = ord("r"), ord("p")  # kinds of chunks

MAGIC = 0x71930E704FDAE05E


class LayoutError(ValueError):
    """The bytes are not what the format says."""


class ChunkHeader(NamedTuple):
    """The 40 bytes in front of a chunk's data; hashes are HighwayHash64."""

    header_hash: int
    data_size: int
    data_hash: int
    kind: str  # "s" signature, "m" metadata, "p" padding, "r" simple, "t" transposed
    num_records: int
    decoded_size: int


def to_logical(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the logical positions of physical ones; a block header maps to the byte behind it."""
    in_block = positions & (BLOCK_BYTES - 1)
    behind_header: NDArray[np.int64] = np.maximum(in_block - BLOCK_HEADER_BYTES, 0)
    return (positions >> 16) * STREAM_BYTES + behind_header


def to_physical(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the physical positions of the bytes at these logical positions."""
    return positions + BLOCK_HEADER_BYTES * (positions // STREAM_BYTES + 1)


def logical(position: int) -> int:
    """Return the logical position of a physical one."""
    block, in_block = divmod(position, BLOCK_BYTES)
    return block * STREAM_BYTES + max(in_block - BLOCK_HEADER_BYTES, 0)


def physical(position: int) -> int:
    """Return the physical position of the byte at a logical one."""
    return position + BLOCK_HEADER_BYTES * (position // STREAM_BYTES + 1)


def varint(value: int) -> bytes:
    """Return a number as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def varint_size(value: int) -> int:
    """Return how many bytes `value` takes as a varint."""
    return max(1, (value.bit_length() + 6) // 7)


def parse_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the varint at `position`, and the position behind it."""
    value = shift = 0
    for end in range(position, min(position + 10, len(data))):
        value |= (data[end] & 0x7F) << shift
        if data[end] < 0x80:
            return value, end + 1
        shift += 7
    raise LayoutError("a varint does not end")


def parse_chunk_header(data: bytes) -> ChunkHeader:
    """Read a chunk header from the first 40 bytes of `data`."""
    if len(data) < CHUNK_HEADER_BYTES:
        raise LayoutError("the file ends inside a chunk header")
    header_hash, data_size, data_hash, kind, decoded_size = struct.unpack_from("<5Q", data)
    return ChunkHeader(header_hash, data_size, data_hash, chr(kind & 0xFF), kind >> 8, decoded_size)


def parse_block_header(data: bytes) -> tuple[int, int]:
    """Return the distances back to the begin, and on to the end, of the chunk around a block header."""
    if len(data) < BLOCK_HEADER_BYTES:
        raise LayoutError("the file ends inside a block header")
    _, previous_chunk, next_chunk = struct.unpack_from("<3Q", data)
    return previous_chunk, next_chunk


def parse_postscript(block: bytes) -> int:
    """Return the footer's physical position from the first bytes (at least 256) of a file's last 64 KiB."""
    header = parse_chunk_header(block[BLOCK_HEADER_BYTES:])
    data = block[BLOCK_HEADER_BYTES + CHUNK_HEADER_BYTES :]
    # Not compressed, three sizes of one byte each, three equal records.
    if header.kind != "r" or header.num_records != 3 or data[:2] != b"\x00\x03":
        raise LayoutError("there is no postscript")
    if len({data[2], data[3], data[4]}) != 1 or header.data_size != 5 + 3 * data[2]:
        raise LayoutError("the postscript is damaged")
    footer_offset, behind = parse_varint(data, 6)
    magic, end = parse_varint(data, behind + 1)
    if data[5] != 0x08 or data[behind] != 0x10 or magic != MAGIC or end != 5 + data[2]:
        raise LayoutError("the postscript is damaged")
    return footer_offset


def read_stream(file: OpenFile, position: int, num_bytes: int) -> bytes:
    """Return `num_bytes` of the stream from a physical position on, without the block headers between them.

    Raises:
        LayoutError: The file ends before.
    """
    if num_bytes <= 0:
        return b""
    begin = physical(start := logical(position))
    raw = file.read(physical(start + num_bytes - 1) + 1 - begin, begin)
    cut = min(-begin % BLOCK_BYTES or BLOCK_BYTES, len(raw))
    pieces = (raw[at + BLOCK_HEADER_BYTES : at + BLOCK_BYTES] for at in range(cut, len(raw), BLOCK_BYTES))
    data = b"".join((raw[:cut], *pieces))
    if len(data) != num_bytes:
        raise LayoutError("the file ends too early")
    return data


def read_footer_offset(file: OpenFile, num_bytes: int) -> int:
    """Return the footer's physical position in a file of `num_bytes`.

    Raises:
        LayoutError: This is no complete ArrayRecord file.
    """
    # Signature block and postscript block, both whole, are the least there can be.
    if num_bytes % BLOCK_BYTES or num_bytes < 2 * BLOCK_BYTES:
        raise LayoutError("the size is no multiple of 64 KiB from 128 KiB on")
    footer_offset = parse_postscript(file.read(256, num_bytes - BLOCK_BYTES))
    in_block = footer_offset % BLOCK_BYTES
    if not FIRST_CHUNK <= footer_offset < num_bytes - BLOCK_BYTES or 0 < in_block < BLOCK_HEADER_BYTES:
        raise LayoutError("the footer is out of place")
    return footer_offset
