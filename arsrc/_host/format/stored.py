"""Small records in chunks of their own that zstd could not shrink: they stand in the file as they are."""

import functools
import struct

from arsrc._host.format.layout import RECORDS, varint
from arsrc._host.format.singles import Form
from arsrc._host.format.streams import ZSTD
from arsrc._host.format.structure import is_no_chunk

STREAMED_BYTES = 4096  # from here on a frame does not say its size, and so is of another form


@functools.lru_cache(64)
def stored(length: int) -> Form:
    """Return the form of such chunks, of records of less than `STREAMED_BYTES`."""
    size = varint(length)
    sizes = varint(len(size)) + _frame_head(len(size)) + size
    data = bytes((ZSTD, len(sizes))) + sizes + size + _frame_head(length)
    fields = struct.pack("<4Q", len(data) + length, 0, RECORDS | 1 << 8, length)
    return Form(length, fields + data, is_no_chunk)


def _frame_head(num_bytes: int) -> bytes:
    """Return what stands in a frame in front of its only block, and of this in front of the bytes themselves."""
    said = struct.pack("<BB", 0x20, num_bytes) if num_bytes < 256 else struct.pack("<BH", 0x60, num_bytes - 256)
    return b"\x28\xb5\x2f\xfd" + said + (num_bytes << 3 | 1).to_bytes(3, "little")
