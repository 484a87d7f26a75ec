"""Decoded groups, kept within a bound in bytes: each is decoded once for all who want records of it for a while."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from arsrc._host.machine.once import Once
from arsrc._host.readers.official import ReadFailure
from arsrc.record_batch import RecordBatch

Groups: TypeAlias = Mapping[int, RecordBatch | ReadFailure]
"""By name, the records of a group, or why they cannot be read."""
Load: TypeAlias = Callable[[Sequence[int]], Groups]


@dataclasses.dataclass(eq=False)
class _Kept:
    """A group that is there, or that comes with others by `load`.

    Attributes:
        num_bytes: Bytes that it takes.
        load: Gives it and others.
        loaded: What that has given.
    """

    num_bytes: int
    load: Callable[[], Groups]
    loaded: Once[Groups]


class GroupCache:
    """The groups used last. Who asks for one while another loads it waits. Safe to use from several threads.

    Args:
        max_bytes: Most bytes that are kept.

    Attributes:
        max_bytes: The same.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._groups: dict[int, _Kept] = {}  # the one used last at the end
        self._lock = threading.RLock()

    @property
    def num_bytes(self) -> int:
        """Bytes that they take."""
        return sum(kept.num_bytes for kept in list(self._groups.values()))

    def get(self, sizes: Mapping[int, int], load: Load) -> Groups:
        """Return groups; those that are not there are loaded together.

        Args:
            sizes: Bytes of each, by name.
            load: Loads some of them.
        """
        together, missing = Once[Groups](), list[int]()
        try:
            with self._lock:
                kept = self._claim(sizes, load, together, missing)
            return {name: one.loaded.get(one.load)[name] for name, one in kept.items()}
        finally:
            with self._lock:
                self._part(missing, together)

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._groups.clear()

    # The methods below run under the lock.

    def _claim(
        self, sizes: Mapping[int, int], load: Load, together: Once[Groups], missing: list[int]
    ) -> dict[int, _Kept]:
        """Return groups as they are kept; those that are not there are `missing`, and will be loaded together."""
        kept: dict[int, _Kept] = {}
        for name in sizes:
            if (found := self._groups.pop(name, None)) is not None:
                self._groups[name] = kept[name] = found
        missing += [name for name in sizes if name not in kept]
        loading = functools.partial(load, missing)
        for name in missing:
            kept[name] = _Kept(sizes[name], loading, together)
            if sizes[name] <= self.max_bytes:
                self._groups[name] = kept[name]
        excess = self.num_bytes - self.max_bytes if missing else 0
        while excess > 0 and self._groups:  # the oldest go
            excess -= self._groups.pop(next(iter(self._groups))).num_bytes
        return kept

    def _part(self, names: Sequence[int], together: Once[Groups]) -> None:
        """Keep what was loaded together each for itself, so that it is let go of alone; what failed is not kept."""
        loaded = together.value or {}
        for name in names:
            kept = self._groups.get(name)
            if kept is None or kept.loaded is not together:
                continue
            if isinstance(batch := loaded.get(name), RecordBatch):
                self._groups[name] = _Kept(kept.num_bytes, dict, Once.of({name: batch}))
            else:
                self._groups.pop(name, None)
