"""array_record's own readers, opened when needed, checked, and closed when too many are open."""

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple

from arsrc._host.format.chunk_list import ChunkList
from arsrc._host.format.file_kinds import what_is_wrong
from arsrc._host.machine import slow_reads
from arsrc._host.machine.bisection import Faulty
from arsrc._host.readers.array_record import open_reader
from arsrc._host.readers.footer_records import list_chunks
from arsrc._host.storage.open_file import KeptOpen, OpenFile
from arsrc._host.storage.stamps import FileStamp, changed, check_file, check_same
from arsrc.errors import ArsrcReadError

# The fastest options for random access: no read-ahead of neighbours, small buffers.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 4096}
_CORRUPT = (
    "The file is damaged, or was changed while open: put a good one in its place and call close(config); or leave such "
    'records out by on_bad_record="mask", or by exclude=bad_records(config).ids.'
)
_FAILURES = (RuntimeError, ValueError, IndexError, MemoryError)  # of C++, whatever it says
_EXIT_SECONDS = 10.0  # for a read that is under way, of however slow a disk
_LOOK_SECONDS = 1e-3
_reading: set[int] = set()  # threads in the midst of a read


@contextlib.contextmanager
def _noted() -> Iterator[None]:
    """Note a read as long as it is under way."""
    _reading.add(threading.get_ident())
    try:
        yield
    finally:
        _reading.discard(threading.get_ident())


@atexit.register
def _end_reads() -> None:
    """Wait for reads: a thread that comes back from C++ where the interpreter is gone aborts the process."""
    _reading.discard(threading.get_ident())  # as an interrupt may have left it
    end = monotonic() + _EXIT_SECONDS
    while _reading and monotonic() < end:
        sleep(_LOOK_SECONDS)


os.register_at_fork(after_in_child=_reading.clear)


class Opened(NamedTuple):
    """A file that is open for array_record's reader.

    Attributes:
        reader: That reader.
        chunks: What it believes, checked.
    """

    reader: Any
    chunks: ChunkList


class ReaderPool(KeptOpen[Opened]):
    """Open readers by path; the least recently used ones are let go."""

    def __init__(self, max_open: int, limit: float | None = None) -> None:
        """Keep at most `max_open`; a read may take `limit` seconds."""
        super().__init__(max_open)
        self._limit = limit
        self._lists: dict[str, ChunkList] = {}  # of files that are opened again

    def reader(self, path: str, stamp: FileStamp) -> Opened:
        """Return what is open of `path`, a file with this stamp.

        Raises:
            ArsrcReadError: It cannot be opened, is no whole ArrayRecord file, or its stamp is another one now.
        """
        return self.get(path, lambda: self._open_checked(path, stamp))

    def _open_checked(self, path: str, stamp: FileStamp) -> Opened:
        try:
            with contextlib.closing(OpenFile(path)) as file:
                if (now := file.stamp()) != stamp:
                    raise changed(path, stamp, now)
                # Some damage makes the constructor fail by itself, and a footer that lies the process: so it is read.
                try:
                    with _noted():
                        chunks = self._lists.get(path) or list_chunks(file)
                        reader = open_reader(path, os.fsencode(path), **_OPTIONS)  # of a text it takes UTF-8 alone
                except _FAILURES as error:
                    reader, why = None, str(error)
                check_same(path, stamp)
                if reader is not None and reader.ok():
                    self._lists[path] = chunks
                    return Opened(reader, chunks)
                what, fix = what_is_wrong(file, stamp.num_bytes, why if reader is None else "array_record refuses it")
        except ArsrcReadError:
            raise
        except OSError as error:
            raise ArsrcReadError("open", f"cannot open a file ({error.strerror})", path=path) from error
        raise ArsrcReadError("open", what, fix, path=path, num_bytes=stamp.num_bytes)

    def read(self, path: str, positions: Sequence[int], stamp: FileStamp) -> list[bytes]:
        """Return the records at `positions` of `path`, a file with this stamp.

        Raises:
            ReadFailure: The reader fails, gives fewer records, or those of other chunks: one of them is bad.
            ArsrcReadError: The file changed since, is gone, or cannot be opened again.
        """

        def open_it() -> Opened:
            opened = self.reader(path, stamp)
            check_file(path, stamp)
            return opened

        opened = slow_reads.read(lambda: f"opening {path!r}", open_it, self._limit)
        what = f"{len(positions)} records of {path!r}, the first at {positions[0]}"
        return slow_reads.read(lambda: what, lambda: _read(opened, path, positions, stamp), self._limit)


def _read(opened: Opened, path: str, positions: Sequence[int], stamp: FileStamp) -> list[bytes]:
    """Return what `ReaderPool.read` does, of an open file."""
    try:
        with _noted():
            records: list[bytes] = opened.reader.read(list(positions))
    except _FAILURES as error:
        check_file(path, stamp)
        if FileStamp.at(path) is None:  # no record's fault, as it seems
            what = f"array_record's reader fails, of a file that is gone ({str(error).strip()})"
            raise ArsrcReadError("read", what, path=path) from error
        what = f"array_record's reader fails ({str(error).strip()})"
        raise ReadFailure(what, _CORRUPT) from error
    if not all(records):  # nothing is also what is given of a file that was truncated meanwhile
        check_file(path, stamp)
    if len(records) != len(positions):
        raise ReadFailure("array_record gave too few records", "")
    try:
        wrong = opened.chunks.wrong(path, stamp, positions, records)
    except OSError as error:
        what = f"cannot look at an open file ({error.strerror})"
        raise ArsrcReadError("read", what, path=path) from error
    if wrong:
        row = list(positions).index(wrong[0])
        raise ReadFailure("a chunk holds other records than the footer says", _CORRUPT, row)
    return records


class ReadFailure(Faulty):
    """A record of one file cannot be read; whoever knows its id makes the error of it."""

    def __init__(self, what: str, fix: str, row: int | None = None) -> None:
        super().__init__(row)
        self.what, self.fix = what, fix
