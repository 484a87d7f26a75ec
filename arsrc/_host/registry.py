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
from arsrc._host.groups import Group, excluded, first_records, part_of, random_access
from arsrc._host.machine.locks import LockOfThread, OwnedLock
from arsrc._host.machine.once import Once
from arsrc._host.open_files import OpenFiles
from arsrc._host.open_source import OpenSource, Schema
from arsrc._host.records.selected import Part, records_of
from arsrc._host.storage.stamps import StaleFilesError
from arsrc.errors import ArsrcReadError, ArsrcTypeError, message
from arsrc.frozen import HashOnce

if TYPE_CHECKING:
    from arsrc.any_config import AnyConfig
    from arsrc.config import ArrayRecordSourceConfig

_IDLE_SECONDS = 5.0  # so long nobody asked for it: a source is idle
_REPLACED_SECONDS = 60.0  # so long nobody asked for one of files that are others now: no loop runs on it any more
_MOST_IDLE = 8
_MOST_TRIES = 10  # at opening files that are replaced, or closed, at the same time
_CLOSING_SECONDS = 0.7  # for threads to end; what they read then closes when they are done

_LOG = logging.getLogger("arsrc")

T = TypeVar("T")
Configs: TypeAlias = "tuple[ArrayRecordSourceConfig, ...]"
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
        self.sources: dict[AnyConfig, Once[OpenSource]] = {}
        self.replaced: list[tuple[AnyConfig, OpenSource]] = []
        self.closing: list[tuple[AnyConfig, OpenSource]] = []  # whose closing has begun, and not ended
        self.files: Table[OpenFiles] = weakref.WeakValueDictionary()
        self.decoded: Table[Decoded] = weakref.WeakValueDictionary()

    def open(self, config: "AnyConfig") -> OpenSource:
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

    def reopen(self, config: "AnyConfig", found: OpenSource) -> OpenSource:
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
            return _in_some_tries(lambda: self._files((config,))[1])

    def _refuse_handlers(self) -> None:
        """Refuse to open what others may be opening who wait for what this thread holds."""
        if self.lock.is_mine() or self.opening.lock.is_mine():
            what = "a signal handler asked for a source in the midst of opening or closing one"
            raise ArsrcReadError("open", what, "Let the handler set a flag, and ask when the step is over.")

    def _open(self, config: "AnyConfig") -> OpenSource:
        return _in_some_tries(lambda: self._open_once(config))

    def _files(self, configs: Configs) -> tuple[Once[OpenFiles], OpenFiles]:
        return self._share(
            self.files,
            _files_of(configs),
            lambda: OpenFiles(_path_sets(configs), configs[0].read, any(map(random_access, configs))),
            lambda files: not files.is_closed and files.is_current(strict=True),
        )

    def _open_once(self, config: "AnyConfig") -> OpenSource:
        groups: list[Group] = []
        try:
            groups.extend(map(self._group, _grouped(config)))
            return OpenSource(config, groups)
        except BaseException:
            for group in groups:
                group.decoded.decoder.rest()  # at once: the error's traceback keeps it
            raise

    def _group(self, configs: Configs) -> Group:
        first, read = configs[0], configs[0].read
        files_once, files = self._files(configs)
        cache = (read.cache_bytes if first.cacheable else None, read.cache_dir)
        parts = tuple(part_of(config, files) for config in configs)

        def decode() -> Decoded:
            data_set, firsts = files.data_set, first_records(files, parts)
            records = records_of(data_set, parts)
            return Decoded(first, data_set, records, firsts[:-1], excluded(configs, firsts), _view_of(configs, parts))

        # What is excluded counts for what is found out of records: the first one, and the lengths of documents.
        exclude = first_record(first) if first.pack is None else tuple(config.exclude for config in configs)
        selected = tuple((config.paths, config.select) for config in configs)
        decoded_once, decoded = self._share(
            self.decoded,
            (files, first.codec, exclude, cache, first.on_bad_record, selected, first.pack),
            decode,
            lambda _: True,
        )
        return Group(configs, files, parts, decoded, (files_once, decoded_once))

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
        with self.lock:
            unused = self._take(self._idle())
        for files in unused:
            files.retire()

    def close(self, config: "AnyConfig | None", seconds: float) -> None:
        """Close a source or all, within so many seconds whatever their codecs are doing."""
        end = monotonic() + seconds
        with self.lock:
            found = self._found(config)
            self.closing = self.closing + found  # where an interrupt ends this here, the next one begins
            closed = list(dict.fromkeys(source for _, source in found))
            unused = self._take(closed)
        for files in unused:
            files.close()
        for files in unused:
            files.ahead.wait(max(0.0, end - monotonic()))
        with self.lock:  # others may be closing too
            self._end_closing(closed)

    # The methods below run under the lock.

    def _opened(self) -> "list[tuple[AnyConfig, OpenSource]]":
        return [(config, value) for config, once in list(self.sources.items()) if (value := once.value) is not None]

    def _found(self, config: "AnyConfig | None") -> "list[tuple[AnyConfig, OpenSource]]":
        """Return what is open, or being closed, of a config or of all."""
        found = self._opened() + self.replaced + self.closing
        return [(one, source) for one, source in found if config is None or one == config]

    def _end_closing(self, closed: Sequence[OpenSource]) -> None:
        self.closing = [(one, source) for one, source in self.closing if source not in closed]

    def _idle(self) -> list[OpenSource]:
        """Return the sources that nobody asks for, but for the last few."""
        now = monotonic()
        idle = [source for _, source in self._opened() if source.asked_at < now - _IDLE_SECONDS]
        idle.sort(key=lambda source: source.asked_at)
        replaced = [source for _, source in self.replaced if source.asked_at < now - _REPLACED_SECONDS]
        return idle[:-_MOST_IDLE] + replaced

    def _take(self, taken: Sequence[OpenSource]) -> set[OpenFiles]:
        """Take open sources out, and tell them; return the files that no other source uses."""
        self.sources = {config: once for config, once in list(self.sources.items()) if once.value not in taken}
        self.replaced = [(config, source) for config, source in self.replaced if source not in taken]
        opening = [
            self.files.get(_files_of(configs))
            for config, once in list(self.sources.items())
            if once.value is None
            for configs in _grouped(config)
        ]
        others = {group for _, source in self._opened() + self.replaced for group in source.groups}
        groups = {group for one in taken for group in one.groups}
        used = {group.files for group in others} | {once.value for once in opening if once is not None}
        unused = {group.files for group in groups} - used
        for files in unused:
            files.is_closed = True
        for one in taken:
            one.close()
        for decoded in {group.decoded for group in groups} - {group.decoded for group in others}:
            decoded.decoder.rest()
        return unused


def _in_some_tries(open_it: Callable[[], T]) -> T:
    """Return what `open_it()` opens; once more where files are replaced or closed meanwhile."""
    for _ in range(_MOST_TRIES - 1):
        with contextlib.suppress(StaleFilesError):
            return open_it()
    return open_it()


def _grouped(config: "AnyConfig") -> list[Configs]:
    """Return the sources of a config, those together that are read together."""
    return [tuple(config._sources[source] for source in sources) for sources in config._groups]


def _path_sets(configs: Configs) -> tuple[tuple[str, ...], ...]:
    """Return the paths of configs that are read together, each set once."""
    return tuple(dict.fromkeys(config.paths for config in configs))


def _files_of(configs: Configs) -> Hashable:
    """Return what tells the files of configs that are read together apart from others."""
    read = configs[0].read
    limits = read.max_open_files, read.read_ahead_bytes, read.timeout_seconds
    return _path_sets(configs), read.checksum, limits, any(map(random_access, configs))


def _view_of(configs: Configs, parts: Sequence[Part]) -> str:
    """Say which records are rows; empty where all are."""
    if len(configs) == 1 and configs[0].select is None and configs[0].pack is None:
        return ""
    selected = [
        f"{part.first_slice}:{part.stop_slice} {'all' if part.ids is None else part.ids.digest}" for part in parts
    ]
    view = f"rows {', '.join(selected)}"
    return view if configs[0].pack is None else f"{view}, packed {configs[0].pack}"


_registry = _Registry()


def source(config: "AnyConfig", strict: bool = False) -> OpenSource:
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
    if found.is_current(strict):
        found.use(config)
        return found
    new = _registry.reopen(config._of_programs, found)
    what = "files were changed or replaced since they were opened; those that are there now are read from here on"
    then, now = found.plan.num_records, new.plan.num_records
    level = logging.INFO if strict else logging.WARNING
    _LOG.log(level, message("open", what, num_records_then=then, num_records=now, paths=config._sources[0].paths[:3]))
    return new


def opened(config: "AnyConfig") -> OpenSource:
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
        raise ArsrcTypeError(
            "config", "is no ArrayRecordSourceConfig or MixtureConfig", fix, config=type(config).__name__
        )


def close(config: "AnyConfig | None" = None) -> None:
    """Close the source of `config` if it is open, or all; they open again when they are next used."""
    if config is not None:
        _check(config)
    _registry.close(None if config is None else config._of_programs, _CLOSING_SECONDS)


atexit.register(close)
os.register_at_fork(after_in_child=_registry.start_anew)
