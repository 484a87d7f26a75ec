"""Open files, and what is kept ahead of reading them, of one source or of several."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from arsrc._host.machine import slow_reads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.data_set import DataSet
from arsrc._host.serving.read_ahead import ReadAhead
from arsrc._host.storage import paths
from arsrc.errors import ArsrcFileNotFoundError, ArsrcReadError

if TYPE_CHECKING:
    from arsrc.config import ReadOptions

_LOOK_SHARE = 10  # looking at the files of a source takes one part in so many of the time


class OpenFiles:
    """Files, and what is kept ahead of reading them, of one source or of several.

    Attributes:
        data_set: The records.
        ahead: Serves requests.
        is_closed: Whether they were closed, or retired: nobody else may begin to use them.
    """

    def __init__(self, path_sets: Sequence[tuple[str, ...]], read: "ReadOptions", random_access: bool) -> None:
        """Open files.

        Args:
            path_sets: What `paths` of configs mean, one behind the other.
            read: How they are read.
            random_access: Whether records will be read in random order.
        """
        self._path_sets, self._limit = path_sets, read.timeout_seconds
        self._slices = self._found()
        self._looked_at, self._look_seconds = -math.inf, math.inf
        self.is_closed = False
        max_bytes = read.read_ahead_bytes
        buffers, groups = BufferPool(max_bytes), GroupCache(max_bytes // 2)
        self.data_set = DataSet(
            [piece for slices in self._slices for piece in slices],
            checksum=read.checksum,
            max_open_files=read.max_open_files,
            random_access=random_access,
            buffers=buffers,
            groups=groups,
            limit=self._limit,
        )
        self.ahead = ReadAhead(buffers, groups, max_bytes)

    def slices_of(self, path_set: tuple[str, ...]) -> range:
        """Return which of the data set's slices one of the path sets means."""
        number = self._path_sets.index(path_set)
        first = sum(map(len, self._slices[:number]))
        return range(first, first + len(self._slices[number]))

    def _found(self) -> list[list[paths.FileSlice]]:
        looked_for = [path for path_set in self._path_sets for path in path_set]
        return slow_reads.read(
            lambda: f"looking for {looked_for}", lambda: list(map(paths.expand, self._path_sets)), self._limit
        )

    def is_current(self, strict: bool) -> bool:
        """Whether the paths still lead to the files that were opened, unchanged.

        Args:
            strict: Look in any case, and fail where a file is gone or cannot be looked at; else look as often as takes
                a tenth of the time at most, and let go on what nobody can change any more.
        """
        start = time.monotonic()
        if not strict and start - self._looked_at < _LOOK_SHARE * self._look_seconds:
            return True
        self._looked_at = start  # and not when it ends: what is written meanwhile is looked at again
        try:
            is_current = self._found() == self._slices and self.data_set.is_current()
        except (ArsrcFileNotFoundError, ArsrcReadError):
            if strict:
                raise
            is_current = True
        # The least so far: others may have had to wait for a core.
        self._look_seconds = min(self._look_seconds, time.monotonic() - start)
        return is_current

    def look_again(self) -> None:
        """Let the next who asks whether these are current look at the files."""
        self._looked_at = -math.inf

    def retire(self) -> None:
        """Let go of what is kept; the files close when the last who still reads them is done."""
        self.ahead.close()

    def close(self) -> None:
        """Let go of what is kept, and close the files."""
        self.ahead.close()
        self.data_set.close()
