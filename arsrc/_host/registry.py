"""The one registry of what is open: sources by config, and what they share. No file is open outside of it."""

import atexit
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from arsrc._host.decoded import Decoded, first_record
from arsrc._host.machine.locks import LockOfThread, OwnedLock
from arsrc._host.machine.once import Once
from arsrc._host.open_files import OpenFiles
from arsrc._host.open_source import Group, OpenSource, Schema, part_of, random_access
from arsrc._host.records.selected import records_of
from arsrc._host.storage.stamps import StaleFilesError
from arsrc.errors import ArsrcReadError, ArsrcTypeError, message
from arsrc.frozen import HashOnce

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig

_IDLE_SECONDS = 5.0  # so long nobody asked for it: a source is idle
_REPLACED_SECONDS = 60.0  # so long nobody asked for one of files that are others now: no loop runs on it any more
_MOST_IDLE = 8
_MOST_TRIES = 10  # at opening files that are replaced, or closed, at the same time
_CLOSING_SECONDS = 0.7  # for threads to end; what they read then closes when they are done

_LOG = logging.getLogger("arsrc")

T = TypeVar("T")
Table: TypeAlias = weakref.WeakValueDictionary[Hashable, Once[T]]


class _Registry:
    """Sources, and what they share, in three kinds.

    Files are told apart by paths, checks and limits; decoded elements by files, codec and cache; sources by all that
    the order and the batches depend on, and how they are read. A further source of the same files costs none. What is
    shared lives as long as a source that holds it.
    """

    def __init__(self) -> None:
        self.left_behind: list[Any] = []
        self.start_anew()

    def start_anew(self) -> None:
        """Begin with nothing open."""
        # A forked child has the parent's readers but not their threads: touching one, even to free it, can hang.
        self.left_behind.append(self.__dict__.copy())
        self.lock = OwnedLock()
        self.opening = LockOfThread()
        self.sources: dict[ArrayRecordSourceConfig, Once[OpenSource]] = {}
        self.replaced: list[tuple[ArrayRecordSourceConfig, OpenSource]] = []
        self.closing: list[tuple[ArrayRecordSourceConfig, OpenSource]] = []  # whose closing has begun, and not ended
        self.files: Table[OpenFiles] = weakref.WeakValueDictionary()
        self.decoded: Table[Decoded] = weakref.WeakValueDictionary()

    def open(self, config: "ArrayRecordSourceConfig") -> OpenSource:
        """Return the source of `config`, opening it if it is not; another that is being opened holds up nobody."""
        self._refuse_handlers()
        while True:
            with self.lock:
                once = self.sources.setdefault(config, Once())
            try:
                with self.opening.lock:
                    found = once.get(lambda: self._open(config))
            finally:
                with self.lock:  # it, or its files, may have been closed while we waited
                    is_good = once.value is not None and not once.value.is_closed
                    if is_good:
                        is_good = self.sources.setdefault(config, once) is once
                    elif self.sources.get(config) is once:
                        del self.sources[config]
            if is_good:
                self._retire_idle()
                return found

    def reopen(self, config: "ArrayRecordSourceConfig", found: OpenSource) -> OpenSource:
        """Return a new source in place of one whose files are others now; loops that run on that one go on with it.

        Where there is none to be had, it stays in its place.
        """
        new = self._open(config)
        with self.lock:
            if (once := self.sources.get(config)) is not None and once.value is found:
                self.sources[config] = Once.of(new)
                self.replaced.append((config, found))
        return self.open(config)

    def open_files(self, config: "ArrayRecordSourceConfig") -> OpenFiles:
        """Return the files of a config without a source: those of one that is open, else such as nobody shares."""
        self._refuse_handlers()
        with self.opening.lock:
            return _in_some_tries(lambda: self._files(config)[1])

    def _refuse_handlers(self) -> None:
        """Refuse to open what others may be opening who wait for what this thread holds."""
        if self.lock.is_mine() or self.opening.lock.is_mine():
            what = "a signal handler asked for a source in the midst of opening or closing one"
            raise ArsrcReadError("open", what, "Let the handler set a flag, and ask when the step is over.")

    def _open(self, config: "ArrayRecordSourceConfig") -> OpenSource:
        return _in_some_tries(lambda: self._open_once(config))

    def _files(self, config: "ArrayRecordSourceConfig") -> tuple[Once[OpenFiles], OpenFiles]:
        return self._share(
            self.files,
            _files_of(config),
            lambda: OpenFiles([config.paths], config.read, random_access(config)),
            lambda files: not files.is_closed and files.is_current(strict=True),
        )

    def _open_once(self, config: "ArrayRecordSourceConfig") -> OpenSource:
        read = config.read
        files_once, files = self._files(config)
        cache = (read.cache_bytes, read.cache_dir) if config.cacheable else None
        parts = (part_of(config, files),)

        def decode() -> Decoded:
            view = "" if config.select is None else f"selected {config.select.ids.digest}"
            view += "" if config.pack is None else f" packed {config.pack}"
            return Decoded(config, files.data_set, records_of(files.data_set, parts), view)

        decoded_once, decoded = self._share(
            self.decoded,
            (files, config.codec, first_record(config), cache, config.on_bad_record, config.select, config.pack),
            decode,
            lambda _: True,
        )
        try:
            return OpenSource(config, Group((config,), files, parts, decoded, (files_once, decoded_once)))
        except BaseException:
            decoded.decoder.rest()  # at once: the error's traceback keeps it
            raise

    def _share(
        self, table: Table[T], key: Hashable, load: Callable[[], T], fits: Callable[[T], bool]
    ) -> tuple[Once[T], T]:
        """Return what is open under `key` if it fits, else what `load()` gives; it lives as long as the first part."""
        with self.lock:
            once = table.setdefault(key, Once())
        found = once.value
        if found is not None and not fits(found):
            with self.lock:  # those who hold it go on with it
                if table.get(key) is once:
                    table[key] = Once()
                once = table.setdefault(key, Once())
        return once, once.get(load)

    def _retire_idle(self) -> None:
        """Retire sources that nobody asks for, but for the last few: who still holds one can go on reading."""
        now = monotonic()
        with self.lock:
            idle = [source for _, source in self._opened() if source.asked_at < now - _IDLE_SECONDS]
            idle.sort(key=lambda source: source.asked_at)
            retired = idle[:-_MOST_IDLE]
            retired += [source for _, source in self.replaced if source.asked_at < now - _REPLACED_SECONDS]
            unused = self._take(retired)
        for files in unused:
            files.retire()

    def close(self, config: "ArrayRecordSourceConfig | None", seconds: float) -> None:
        """Close a source or all, within so many seconds whatever their codecs are doing."""
        end = monotonic() + seconds
        with self.lock:
            found = self._opened() + self.replaced + self.closing
            found = [(one, source) for one, source in found if config is None or one == config]
            self.closing = self.closing + found  # where an interrupt ends this here, the next one begins
            closed = list(dict.fromkeys(source for _, source in found))
            unused = self._take(closed)
        for files in unused:
            files.close()
        for files in unused:
            files.ahead.wait(max(0.0, end - monotonic()))
        self.closing = [(one, source) for one, source in self.closing if source not in closed]

    # The methods below run under the lock.

    def _opened(self) -> "list[tuple[ArrayRecordSourceConfig, OpenSource]]":
        return [(config, value) for config, once in list(self.sources.items()) if (value := once.value) is not None]

    def _take(self, taken: Sequence[OpenSource]) -> set[OpenFiles]:
        """Take open sources out, and tell them; return the files that no other source uses."""
        self.sources = {config: once for config, once in list(self.sources.items()) if once.value not in taken}
        self.replaced = [(config, source) for config, source in self.replaced if source not in taken]
        opening = [
            self.files.get(_files_of(config)) for config, once in list(self.sources.items()) if once.value is None
        ]
        others = [source for _, source in self._opened() + self.replaced]
        used = {source.files for source in others}
        unused = {one.files for one in taken} - used - {once.value for once in opening if once is not None}
        for files in unused:
            files.is_closed = True
        for one in taken:
            one.close()
        for decoded in {one.group.decoded for one in taken} - {source.group.decoded for source in others}:
            decoded.decoder.rest()
        return unused


def _in_some_tries(open_it: Callable[[], T]) -> T:
    """Return what `open_it()` opens; once more where files are replaced or closed meanwhile."""
    for _ in range(_MOST_TRIES - 1):
        with contextlib.suppress(StaleFilesError):
            return open_it()
    return open_it()


def _files_of(config: "ArrayRecordSourceConfig") -> Hashable:
    """Return what tells the files of a config apart from others."""
    read = config.read
    limits = read.max_open_files, read.read_ahead_bytes, read.timeout_seconds
    return config.paths, read.checksum, limits, random_access(config)


_registry = _Registry()


def source(config: "ArrayRecordSourceConfig", strict: bool = False) -> OpenSource:
    """Return the open source of `config` for what begins: one of the files that its paths lead to now.

    Args:
        config: The config.
        strict: Look at the files in any case; else as often as takes a tenth of the time at most, and what is gone may
            still be read.

    Raises:
        ArsrcTypeError: It is no config.
    """
    _check(config)
    if config._of_programs not in _registry.sources:
        return opened(config)  # which looks at the files
    found = opened(config)
    if found.files.is_current(strict):
        found.decoder.use(config.codec)
        return found
    new = _registry.reopen(config._of_programs, found)
    what = "files were changed or replaced since they were opened; those that are there now are read from here on"
    then, now = found.plan.num_records, new.plan.num_records
    level = logging.INFO if strict else logging.WARNING
    _LOG.log(level, message("open", what, num_records_then=then, num_records=now, paths=config.paths[:3]))
    return new


def opened(config: "ArrayRecordSourceConfig") -> OpenSource:
    """Return the open source of `config` for what goes on, whatever became of its files; opens it if it is not.

    Raises:
        ArsrcTypeError: It is no config.
    """
    _check(config)
    once = _registry.sources.get(config._of_programs)
    found = None if once is None else once.value
    if found is None:
        found = _registry.open(config._of_programs)
    found.asked_at = monotonic()
    return found


def open_files(config: "ArrayRecordSourceConfig") -> OpenFiles:
    """Return the open files of `config`, whatever its codec; they close when nobody refers to them any more.

    Raises:
        ArsrcTypeError: It is no config.
    """
    _check(config)
    return _registry.open_files(config)


def replaced(schema: Schema) -> OpenSource | None:
    """Return the source that loops of this schema began with, if its files are others now; None: there is none."""
    found = next((source for _, source in reversed(_registry.replaced) if source.schema == schema), None)
    if found is not None:
        found.asked_at = monotonic()
    return found


def look_again() -> None:
    """Note that files may just have been written: all are looked at when they are next asked for."""
    for once in list(_registry.files.values()):
        if once.value is not None:
            once.value.look_again()


def _check(config: object) -> None:
    if not isinstance(config, HashOnce):
        fix = "Arguments are the config, then a state."
        raise ArsrcTypeError("config", "is no ArrayRecordSourceConfig", fix, config=type(config).__name__)


def close(config: "ArrayRecordSourceConfig | None" = None) -> None:
    """Close the source of `config` if it is open, or all; they open again when they are next used."""
    if config is not None:
        _check(config)
    _registry.close(None if config is None else config._of_programs, _CLOSING_SECONDS)


atexit.register(close)
os.register_at_fork(after_in_child=_registry.start_anew)
