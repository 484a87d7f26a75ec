"""The footer of any ArrayRecord file, decompressed by array_record, which is not asked to believe it."""

from collections.abc import Iterator

from arsrc._host.format.chunk_list import ChunkList
from arsrc._host.format.footer_copy import footer_copy
from arsrc._host.format.layout import BLOCK_BYTES, LayoutError
from arsrc._host.machine.memory import free_bytes
from arsrc._host.readers.array_record import open_reader
from arsrc._host.storage import system
from arsrc._host.storage.open_file import OpenFile

_SLAB_RECORDS = 1 << 20
_SMALL_BYTES = 1 << 28  # asking how much memory is free takes longer than opening a file


def list_chunks(file: OpenFile) -> ChunkList:
    """Return the chunks of an open file.

    Raises:
        LayoutError: It is no complete ArrayRecord file, its footer is damaged or lies, or a chunk does not fit into
            memory.
    """
    copy, num_records, end = footer_copy(file, file.stamp().num_bytes)
    chunks = ChunkList.parse(_records(file.path, copy, num_records), end)
    if chunks.largest > _SMALL_BYTES and chunks.largest > free_bytes():
        raise LayoutError(f"a chunk takes {chunks.largest} bytes of memory")
    return chunks


def _records(path: str, copy: bytes, num_records: int) -> Iterator[list[bytes]]:
    fd = system.calls.open_memory()
    try:
        written = 0
        while written < len(copy):
            written += system.calls.pwrite(fd, memoryview(copy)[written:], BLOCK_BYTES + written)
        reader = open_reader(path, f"/dev/fd/{fd}")
    finally:
        system.calls.close(fd)
    if not reader.ok():
        raise LayoutError("the footer cannot be decoded")
    try:
        for first in range(0, num_records, _SLAB_RECORDS):
            yield reader.read(first, min(first + _SLAB_RECORDS, num_records))
    except (RuntimeError, ValueError) as error:
        raise LayoutError(f"the footer cannot be decoded: {str(error).strip()}") from error
