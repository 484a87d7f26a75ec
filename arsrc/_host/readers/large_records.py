"""Copying large records: a system call for each 30 MB, from the page cache straight into place.

For them it is faster than the map, whose pages each cost a fault when they are touched first.
"""

import collections
import os
import threading

from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.layout import BLOCK_HEADER_BYTES, STREAM_BYTES
from arsrc._host.storage.stamps import FileStamp
from arsrc.errors import ArsrcReadError, message

_MAX_BUFFERS = 1_000  # of one call; Linux allows 1024


class Descriptor:
    """An open file, closed when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "fd"):
            os.close(self.fd)


class Descriptors:
    """At most `max_open` open files, the least recently used ones let go. Safe to use from several threads."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._open: collections.OrderedDict[str, Descriptor] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, index: FileIndex) -> Descriptor | None:
        """Return the open file; None where its path does not lead to what was indexed any more."""
        with self._lock:
            if index.path in self._open:
                self._open.move_to_end(index.path)
                return self._open[index.path]
        try:
            opened = Descriptor(index.path)
            if FileStamp.of(os.fstat(opened.fd)) != index.stamp:
                return None
        except OSError:
            return None
        with self._lock:
            self._open[index.path] = opened
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
        return opened

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._open.clear()


def read_record(file: Descriptor, begin: int, in_block: int, out: memoryview) -> bool:
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
            if os.preadv(file.fd, some, begin) != num_bytes:
                return False
        except OSError as error:
            what = f"cannot read a file ({error.strerror})"
            raise ArsrcReadError(message("read", what, path=file.path)) from error
        begin += num_bytes
    return True
