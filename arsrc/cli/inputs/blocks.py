"""The bytes of an input file, block by block, unpacked where the file is compressed."""

import contextlib
import zlib
from collections.abc import Iterable, Iterator

from arsrc._host.format.file_kinds import is_tfrecord
from arsrc._host.storage.open_file import OpenFile
from arsrc.cli.inputs.damage import damage
from arsrc.errors import ArsrcReadError

BLOCK_BYTES = 1 << 19  # which the processor's cache holds
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # told by what it begins with


class InputFile:
    """A file that is read, through the library's one seam of file access.

    Attributes:
        path: Where it is.
        num_bytes: Its size.

    Raises:
        ArsrcReadError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with self._failing():
            self._file = OpenFile(path)
            self.num_bytes = self._file.stamp().num_bytes
        self.close = self._file.close

    def read(self, num_bytes: int, position: int) -> bytes:
        """Return the bytes from a position on, fewer where the file ends; an `ArsrcReadError` where that fails."""
        with self._failing():
            return self._file.read(num_bytes, position)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"cannot read a file ({error.strerror})"
            raise ArsrcReadError("convert", what, path=self.path) from error


def blocks(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file as they are, in blocks none of which is empty."""
    with contextlib.closing(InputFile(path)) as file:
        at = 0
        while block := file.read(BLOCK_BYTES, at):
            yield block
            at += len(block)


def beginning(path: str) -> bytes:
    """Return the first block of a file, nothing of an empty one."""
    with contextlib.closing(InputFile(path)) as file:
        return file.read(BLOCK_BYTES, 0)


def is_packed(head: bytes) -> bool:
    """Whether what begins so may be compressed by gzip or zlib."""
    is_zlib = head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0
    # A TFRecord file's first length may look like that, but not together with its checksum.
    return (is_zlib or head.startswith(b"\x1f\x8b")) and not is_tfrecord(head)


def blocks_within(path: str) -> Iterator[bytes]:
    """Yield what a file holds, in blocks, unpacked where it is compressed by gzip or zlib."""
    return unpacked(path, blocks(path)) if is_packed(beginning(path)) else blocks(path)


def unpacked(path: str, packed: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the blocks of a gzip or zlib file unpack to, in blocks; all checksums in it are checked.

    A gzip file may have several members one behind the other, and zeros at its end.

    Raises:
        ArsrcReadError: It is damaged, or not complete.
    """
    stream, at = zlib.decompressobj(_GZIP_OR_ZLIB), 0
    try:
        for block in packed:
            at += len(block)
            while block:
                if stream.eof:
                    if not (block := block.lstrip(b"\0")):
                        break
                    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
                if data := stream.decompress(block, BLOCK_BYTES):
                    yield data
                block = stream.unconsumed_tail or stream.unused_data
        if data := stream.flush():
            yield data
    except zlib.error as error:
        raise damage(path, f"a compressed file is damaged ({error})", before_byte=at) from error
    if not stream.eof:
        raise damage(path, "a compressed file ends too early", num_bytes=at)
