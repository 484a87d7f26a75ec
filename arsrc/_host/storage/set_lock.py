"""The file beside a set of shards that its writer holds, and that shows readers when the set may be a mixture.

Shards get to their places one by one, and a writer may end in between. So the file is there, empty, while shards are
written elsewhere; it says something from before the first one is put into place until after the last one; then it goes.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable

from arsrc._host.storage import system
from arsrc._host.storage.file_names import lock_of, look
from arsrc._host.storage.open_file import OpenFile
from arsrc.errors import ArsrcReadError, ArsrcWriteError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class SetLock:
    """The right to write a set, which one writer has at a time; the system takes it from one that was killed.

    Where a file system has no locks, of writers at the same time one finds out at the end.

    Attributes:
        is_alone: Whether there is certainly no other writer.
    """

    def __init__(self, shard: str) -> None:
        """Begin to write the set of which this is a shard.

        Raises:
            ArsrcWriteError: Another writer does.
            OSError: The folder cannot be written to.
        """
        lock = lock_of(shard)
        assert lock is not None
        self._folder, self.path = os.path.dirname(lock), lock
        self._text = f"Shards are being put into place, by writer {uuid.uuid4().hex}.\n".encode()
        self._is_done, self.is_alone = False, True
        while (file := self._opened()) is None:
            pass
        self._file = file

    def _opened(self) -> OpenFile | None:
        """Return the file, locked; None: its writer, who is done now, has removed it meanwhile."""
        file = OpenFile(self.path, os.O_RDWR | os.O_CREAT)
        try:
            is_mine = system.calls.lock(file.fd)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            is_mine, self.is_alone = True, False
        if not is_mine:
            what, fix = "another writer writes the same shards", "Wait until it is done, or choose another name."
            raise ArsrcWriteError("write_array_record", what, fix, path=self.path)
        there, here = look(self.path), system.calls.fstat(file.fd)
        return file if there is not None and os.path.samestat(there, here) else None

    def begin(self) -> None:
        """Show that from now on the set may be a mixture."""
        with contextlib.closing(OpenFile(self.path, os.O_RDWR | os.O_CREAT)) as file:
            # Over what a writer may have left that was killed: it is as long, and never is there nothing.
            if system.calls.pwrite(file.fd, self._text, 0) != len(self._text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            system.calls.sync(file.fd)
        sync_folder(self._folder)

    def end(self) -> None:
        """Show that the set is whole.

        Raises:
            ArsrcWriteError: It may be a mixture with what another writer has written, where there are no locks.
        """
        found = b""
        with contextlib.suppress(FileNotFoundError), contextlib.closing(OpenFile(self.path)) as file:
            found = file.read(len(self._text), 0)
        if found != self._text:
            self.begin()
            what, fix = "another writer wrote the same shards at the same time", "Write them once more."
            raise ArsrcWriteError("write_array_record", what, fix, path=self.path)
        system.calls.unlink(self.path)
        self._is_done = True
        sync_folder(self._folder)

    def release(self) -> None:
        """Let others write. The file stays where the set may be a mixture."""
        with contextlib.suppress(OSError):
            if not self._is_done and (found := look(self.path)) is not None and found.st_size == 0:
                system.calls.unlink(self.path)
        self._file.close()


def check_whole(files: Iterable[str]) -> None:
    """Look whether the sets that files are shards of are whole.

    Raises:
        ArsrcReadError: One may be a mixture of old and new shards.
    """
    locks = {lock for file in files if (lock := lock_of(file)) is not None}
    for lock in sorted(locks):
        if (found := look(lock)) is not None and found.st_size > 0:
            what = "the shards may be a mixture of old and new ones: their writer is at it, or was stopped"
            fix = "Wait until it is done, or write them once more."
            raise ArsrcReadError("open", what, fix, path=lock)


def sync_folder(folder: str) -> None:
    """Wait until what was changed in a folder is on disk, where the file system can."""
    with contextlib.closing(OpenFile(folder)) as file:
        try:
            system.calls.sync(file.fd)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
