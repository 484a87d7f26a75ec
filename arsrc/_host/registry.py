"""The one registry of what is open: sources by config, and what they share. No file is open outside of it."""

import atexit
import os
import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from arsrc import paths
from arsrc._host.machine.once import Once
from arsrc._host.open_source import Decoded, OpenFiles, OpenSource, first_record, random_access
from arsrc.errors import ArsrcTypeError, message
from arsrc.frozen import HashOnce

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig

_IDLE_SECONDS = 5.0  # so long nobody asked for it: a source is idle
_MOST_IDLE = 8
_CLOSING_SECONDS = 0.7  # for threads to end; what they read then closes when they are done


class _Closable(Protocol):
    def close(self, seconds: float) -> None: ...
    def retire(self) -> None: ...


T = TypeVar("T", bound=_Closable)


class _Shared(Generic[T]):
    """Things that several sources use, by key: opened for the first, closed behind the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[Hashable, Once[T]] = {}
        self._users: dict[Once[T], set[object]] = {}

    def use(self, key: Hashable, user: object, load: Callable[[], T], fits: Callable[[T], bool]) -> T:
        """Return what there is under `key` if it fits, else what `load()` gives; `user` uses it until `leave`."""
        is_new = False

        def load_now() -> T:
            nonlocal is_new
            is_new = True
            return load()

        while True:
            with self._lock:
                once = self._opened.setdefault(key, Once())
                self._users.setdefault(once, set()).add(user)
            try:
                value = once.get(load_now)
                if is_new or fits(value):
                    return value
            except BaseException:
                self.leave(user, None)
                raise
            with self._lock:  # those who use it go on with it
                if self._opened.get(key) is once:
                    del self._opened[key]
            self.leave(user, None, once)

    def leave(self, user: object, seconds: float | None, only: Once[T] | None = None) -> None:
        """End what `user` uses; what nobody else uses is closed within so many seconds, or retired where None."""
        with self._lock:
            for users in self._users.values() if only is None else [self._users.get(only, set())]:
                users.discard(user)
            unused = [once for once, users in self._users.items() if not users]
            for once in unused:
                del self._users[once]
            self._opened = {key: once for key, once in self._opened.items() if once in self._users}
        for once in unused:
            if (value := once.value) is not None:
                value.retire() if seconds is None else value.close(seconds)


class _Registry:
    """Sources, and what they share, in three kinds.

    Files are told apart by paths and checks; decoded elements by files, codec and cache; sources by all that the order
    and the batches depend on, and how they are read. A further source of the same files costs none.
    """

    def __init__(self) -> None:
        self.left_behind: list[Any] = []
        self.start_anew()

    def start_anew(self) -> None:
        """Begin with nothing open."""
        # A forked child has the parent's readers but not their threads: touching one, even to free it, can hang.
        self.left_behind.append(self.__dict__.copy())
        self.lock = threading.Lock()
        self.sources: dict[ArrayRecordSourceConfig, Once[OpenSource]] = {}
        self.files: _Shared[OpenFiles] = _Shared()
        self.decoded: _Shared[Decoded] = _Shared()

    def open(self, config: "ArrayRecordSourceConfig") -> OpenSource:
        """Return the source of `config`, opening it if it is not; another that is being opened holds up nobody."""
        while True:
            with self.lock:
                once = self.sources.setdefault(config, Once())
            try:
                found = once.get(lambda once=once: self._open(config, once))  # type: ignore[misc]
            except BaseException:
                with self.lock:
                    if self.sources.get(config) is once and once.value is None:
                        del self.sources[config]
                raise
            with self.lock:  # it may have been closed while we waited for it; or who began to open it failed
                if not found.is_closed and self.sources.setdefault(config, once) is once:
                    break
            self._leave(once, None)
        self._close_idle()
        return found

    def _open(self, config: "ArrayRecordSourceConfig", user: object) -> OpenSource:
        read = config.read
        slices = paths.expand(config.paths)
        try:
            files = self.files.use(
                (config.paths, read.checksum, read.max_open_files, random_access(config)),
                user,
                lambda: OpenFiles(slices, config),
                lambda files: files.is_current(slices),
            )
            cache = (read.cache_bytes, read.cache_dir) if config.cacheable else None
            decoded = self.decoded.use(
                (files, config.codec, first_record(config), cache),
                user,
                lambda: Decoded(config, files.data_set),
                lambda _: True,
            )
            return OpenSource(config, files, decoded)
        except BaseException:
            self._leave(user, None)
            raise

    def _leave(self, user: object, seconds: float | None) -> None:
        self.decoded.leave(user, seconds)
        self.files.leave(user, seconds)

    def _close_idle(self) -> None:
        """Retire sources that nobody asks for, but for the last few: who still holds one can go on reading."""
        before = monotonic() - _IDLE_SECONDS
        with self.lock:
            idle = [(value.asked_at, config) for config, value in self._opened() if value.asked_at < before]
            idle.sort(key=lambda one: one[0])
            retired = self._take([config for _, config in idle[:-_MOST_IDLE]])
        for once in retired:
            self._leave(once, None)

    def close(self, config: "ArrayRecordSourceConfig | None", seconds: float) -> None:
        """Close a source or all, within so many seconds whatever their codecs are doing."""
        end = monotonic() + seconds
        with self.lock:
            closed = self._take([one for one, _ in self._opened() if config is None or one == config])
        for once in closed:
            self._leave(once, max(0.0, end - monotonic()))

    # The methods below run under the lock.

    def _opened(self) -> "list[tuple[ArrayRecordSourceConfig, OpenSource]]":
        return [(config, value) for config, once in self.sources.items() if (value := once.value) is not None]

    def _take(self, configs: "list[ArrayRecordSourceConfig]") -> list[Once[OpenSource]]:
        """Take sources out, and tell all of them before anyone is waited for."""
        taken = [self.sources.pop(config) for config in configs]
        for once in taken:
            if (value := once.value) is not None:
                value.close()
        return taken


_registry = _Registry()


def source(config: "ArrayRecordSourceConfig") -> OpenSource:
    """Return the open source of `config`, opening it if it is not.

    Raises:
        ArsrcTypeError: It is no config.
    """
    _check(config)
    once = _registry.sources.get(config.of_programs)
    found = None if once is None else once.value
    if found is None:
        found = _registry.open(config.of_programs)
    found.asked_at = monotonic()
    return found


def _check(config: object) -> None:
    if not isinstance(config, HashOnce):
        fix = "Arguments are the config, then a state."
        raise ArsrcTypeError(message("config", "is no ArrayRecordSourceConfig", fix, config=type(config).__name__))


def close(config: "ArrayRecordSourceConfig | None" = None) -> None:
    """Close the source of `config` if it is open, or all; they open again when they are next used."""
    if config is not None:
        _check(config)
    _registry.close(None if config is None else config.of_programs, _CLOSING_SECONDS)


atexit.register(close)
os.register_at_fork(after_in_child=_registry.start_anew)
