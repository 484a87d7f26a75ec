"""Noticing files that were truncated or written to while they are mapped.

Touching a map behind the end of a file that became shorter kills the process, and a file rewritten in place
gives records that nobody wrote: so files are looked at right before and after they are read. That leaves truncations
within the microseconds of the reading itself; where there are many files, up to 25 microseconds for each of them, since
looking must not take longer than reading; and file systems that tell late what another machine did.
"""

import copy
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage import system
from arsrc.errors import ArsrcReadError


@dataclasses.dataclass(frozen=True)
class FileStamp:
    """What shows that a file was changed in place: its identity, size, and time of last change.

    Attributes:
        ctime_ns: When anything of the file changed, as a link to it or its mode too: so stamps that differ in it alone
            are equal. But it cannot be set, as `mtime_ns` can after new data was written.
    """

    device: int
    inode: int
    num_bytes: int
    mtime_ns: int
    ctime_ns: int = dataclasses.field(compare=False)

    @classmethod
    def of(cls, now: os.stat_result) -> "FileStamp":
        """Return the stamp of what `os.stat` or `os.fstat` gave."""
        return cls(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)

    @classmethod
    def at(cls, path: str) -> "FileStamp | None":
        """Return the stamp of the file that a path leads to now; None where it leads to none."""
        try:
            return cls.of(system.calls.stat(path))
        except OSError:
            return None

    @classmethod
    def there(cls, path: str) -> "FileStamp":
        """Return the stamp of the file that a path leads to now; it is an error if it leads to no regular one."""
        try:
            now = system.calls.stat(path)
        except OSError as error:
            raise ArsrcReadError("open", f"cannot open a file ({error.strerror})", path=path) from error
        if not stat.S_ISREG(now.st_mode):  # who opens a FIFO may wait for ever
            raise ArsrcReadError("open", "is no regular file", path=path)
        return cls.of(now)

    def is_untouched(self, before: "FileStamp") -> bool:
        """Whether nothing at all of a file changed since it had another stamp."""
        return self == before and self.ctime_ns == before.ctime_ns


StampOf: TypeAlias = Callable[[str], FileStamp | None]

# With this many seconds for each file that there is, looking takes less than a tenth of the time; in turn, of
# ten thousand files each is looked at only four times a second.
_SECONDS_PER_FILE = 25e-6


class FileWatch:
    """Compares mapped files with what they were when they were indexed.

    It asks by descriptor, wherever the file is now. Where there are more files than descriptors it asks by path: one
    that is gone or leads elsewhere says nothing about the mapped file, which was removed, replaced or moved. A file
    that was changed before stays refused.
    """

    def __init__(self, files: Mapping[int, tuple[str, FileStamp]]) -> None:
        """Take files by number: their paths, and what they were."""
        self._files = files
        self._refused: dict[int, ArsrcReadError] = {}
        self._unknown: set[int] = set()  # of which nobody knows where they are now
        self._seconds = _SECONDS_PER_FILE * len(files)
        self._due = np.zeros(max(files, default=0) + 1)  # f64[numbers], when to look at each again

    def check(self, files: NDArray[np.int64], stamp_of: StampOf) -> bool:
        """Look at those of the files with these numbers that have not been looked at just now.

        Args:
            files: i64[n], numbers.
            stamp_of: Gives what the mapped file of a path is now, None where it has no descriptor.

        Returns:
            Whether all of them could be looked at.

        Raises:
            ArsrcReadError: A file was changed.
        """
        for number, error in list(self._refused.items()):
            if (files == number).any():
                raise copy.copy(error)
        if len(self._files) == 1:
            for number in self._files:
                self.look(number, stamp_of)
            return not self._unknown
        now = time.monotonic()
        due = self._due[files] <= now
        if due.any():
            for number in set(files[due].tolist()):
                self.look(number, stamp_of)
                self._due[number] = now + self._seconds
        return not self._unknown or not np.isin(files, list(self._unknown)).any()

    def take_over(self, before: "FileWatch") -> None:
        """Refuse what another one of the same numbering refuses."""
        self._refused |= before._refused

    def look(self, number: int, stamp_of: StampOf) -> None:
        """Look at one file now; the arguments are those of `check`.

        Raises:
            ArsrcReadError: It was changed.
        """
        path, was = self._files[number]
        try:
            is_known = check_file(path, was, stamp_of)
        except ArsrcReadError as error:
            if not isinstance(error.__cause__, OSError):  # a look that failed says nothing of the file
                self._refused[number] = copy.copy(error)  # whose traceback would keep files open
            raise
        if is_known:
            self._unknown.discard(number)
        else:
            self._unknown.add(number)


def check_file(path: str, was: FileStamp, stamp_of: StampOf = lambda _: None) -> bool:
    """Look whether an open file was changed in place.

    Args:
        path: Where it was opened.
        was: What it was then.
        stamp_of: Gives what the open file of a path is now, None where nobody can tell.

    Returns:
        Whether it was looked at; not where its path leads nowhere, or to another file.

    Raises:
        ArsrcReadError: It was changed.
    """
    try:
        now = stamp_of(path) or FileStamp.of(system.calls.stat(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        what = f"cannot look at an open file ({error.strerror})"
        raise ArsrcReadError("read", what, path=path) from error
    if (now.device, now.inode) != (was.device, was.inode):
        return False
    if now != was:
        raise changed(path, was, now)
    return True


class StaleFilesError(ArsrcReadError):
    """A file is not what it was when it was first looked at, or what was open was closed: to open it anew may help."""


def check_same(path: str, was: FileStamp) -> None:
    """Raise `StaleFilesError` unless a path leads to the same file as before, unchanged."""
    if (now := FileStamp.there(path)) != was:
        raise changed(path, was, now)


def changed(path: str, was: FileStamp, now: FileStamp) -> StaleFilesError:
    """Return the error for a file that is not what was indexed."""
    what = "a file was changed while it was open"
    if now.num_bytes != was.num_bytes:
        what += f": it had {was.num_bytes} bytes, now {now.num_bytes}"
    fix = "Write new data beside it and rename it into place; call close(config) to open what is there now."
    return StaleFilesError("read", what, fix, path=path)


def closed() -> StaleFilesError:
    """Return the error for a read that comes too late."""
    return StaleFilesError("read", "the files were closed", "Read before close(config).")
