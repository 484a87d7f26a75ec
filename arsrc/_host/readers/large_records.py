"""Copying large records: a system call for each 30 MB, from the page cache straight into place.

For them it is faster than the map, whose pages each cost a fault when they are touched first.
"""

from arsrc._host.format.layout import BLOCK_HEADER_BYTES, STREAM_BYTES
from arsrc._host.storage.open_file import OpenFile
from arsrc.errors import ArsrcReadError

_MAX_BUFFERS = 1_000  # of one call; Linux allows 1024


def read_record(file: OpenFile, begin: int, in_block: int, out: memoryview) -> bool:
    """Read one record.

    Args:
        file: The file.
        begin: Physical position of the record in it.
        in_block: Bytes of the stream between the block's header and the record.
        out: u8[length] to write into.

    Returns:
        Whether all of it was there.

    Raises:
        ArsrcReadError: The system cannot read.
    """
    header = bytearray(BLOCK_HEADER_BYTES)
    cut = STREAM_BYTES - in_block
    buffers: list[memoryview | bytearray] = [out[:cut]]
    for start in range(cut, len(out), STREAM_BYTES):
        buffers += (header, out[start : start + STREAM_BYTES])
    for first in range(0, len(buffers), _MAX_BUFFERS):
        some = buffers[first : first + _MAX_BUFFERS]
        num_bytes = sum(map(len, some))
        try:
            if file.read_into(some, begin) != num_bytes:
                return False
        except OSError as error:
            what = f"cannot read a file ({error.strerror})"
            raise ArsrcReadError("read", what, path=file.path) from error
        begin += num_bytes
    return True
