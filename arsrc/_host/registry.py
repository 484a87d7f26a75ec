"""The one registry of open sources, keyed by config: no file is open outside of it."""

import atexit
import os
import threading
from typing import TYPE_CHECKING

from arsrc._host.open_source import HostSource
from arsrc.errors import ArsrcTypeError, message
from arsrc.frozen import HashOnce

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sources: dict[ArrayRecordSourceConfig, HostSource] = {}
        self.left_behind: list[HostSource] = []

    def start_anew(self) -> None:
        # A forked child has the parent's readers but not their threads: touching one, even to free it, can hang.
        self.lock = threading.RLock()
        self.left_behind.extend(self.sources.values())
        self.sources = {}


_registry = _Registry()


def source(config: "ArrayRecordSourceConfig") -> HostSource:
    """Return the open source of `config`, opening it if it is not.

    Raises:
        ArsrcTypeError: It is no config.
    """
    _check(config)
    found = _registry.sources.get(config)
    if found is not None:
        return found
    with _registry.lock:
        if config not in _registry.sources:
            _registry.sources[config] = HostSource(config)
        return _registry.sources[config]


def _check(config: object) -> None:
    if not isinstance(config, HashOnce):
        fix = "Arguments are the config, then a state."
        raise ArsrcTypeError(message("config", "is no ArrayRecordSourceConfig", fix, config=type(config).__name__))


def close(config: "ArrayRecordSourceConfig") -> None:
    """Close the source of `config`, if it is open; it opens again when it is next used."""
    with _registry.lock:
        found = _registry.sources.pop(config, None)
    if found is not None:
        found.close()


def _close_all() -> None:
    for config in list(_registry.sources):
        close(config)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_registry.start_anew)
