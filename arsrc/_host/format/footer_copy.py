"""A footer in a file of its own, as the only chunk of data: so that array_record's reader decompresses it.

The blocks that hold it are copied as they are, since block headers say distances. Around them stands what that reader
needs to find one chunk, and is known to be right.
"""

import struct
from collections.abc import Sequence

from arsrc._host.format.footer import read_footer_header
from arsrc._host.format.highway_hash import highway_hash
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    MAGIC,
    logical,
    varint,
)
from arsrc._host.storage.open_file import OpenFile


def footer_copy(file: OpenFile, num_bytes: int) -> tuple[bytes, int, int]:
    """Copy the footer of an open file of `num_bytes`.

    Returns:
        The content of the copy from its second block on, how many records it holds, and the logical position of the
        footer in the file. The first block is never read: at its begin, no chunk of data can stand.

    Raises:
        LayoutError: There is none, or one that is larger than the file allows.
    """
    offset, header = read_footer_header(file, num_bytes)
    begin, num_records, decoded_size = logical(offset), header.num_records, header.decoded_size
    first = offset // BLOCK_BYTES * BLOCK_BYTES
    blocks = file.read(num_bytes - BLOCK_BYTES - first, first)
    end = BLOCK_BYTES + len(blocks)
    counts = _numbers(1, 1, num_records)
    footer = [b"\x0a" + varint(len(counts)) + counts, _numbers(BLOCK_BYTES + offset - first, decoded_size, num_records)]
    content = blocks + _block(footer) + _block([_numbers(end, MAGIC)] * 3)
    return content, num_records, begin


def _numbers(*values: int) -> bytes:
    """Return a message whose fields 1, 2, ... are these."""
    return b"".join(bytes((tag,)) + varint(value) for tag, value in zip(b"\x08\x10\x18", values, strict=False))


def _block(records: Sequence[bytes]) -> bytes:
    """Return a block that holds one uncompressed chunk of a few records."""
    values = b"".join(records)
    data = bytes((0, len(records), *map(len, records))) + values
    words = len(data), highway_hash(data), ord("r") | len(records) << 8, len(values)
    chunk = _signed(struct.pack("<4Q", *words)) + data
    header = _signed(struct.pack("<2Q", 0, BLOCK_HEADER_BYTES + len(chunk)))
    return (header + chunk).ljust(BLOCK_BYTES, b"\0")


def _signed(header: bytes) -> bytes:
    return struct.pack("<Q", highway_hash(header)) + header
