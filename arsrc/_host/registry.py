"""The one registry of open sources, keyed by config: the only global state of the package."""

import atexit
import os
import threading
from typing import TYPE_CHECKING

from arsrc._host.source import HostSource

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig

_lock = threading.RLock()
_open: "dict[ArrayRecordSourceConfig, HostSource]" = {}
_left_behind: list[HostSource] = []


def source(config: "ArrayRecordSourceConfig") -> HostSource:
    """Return the open source of `config`, opening it if it is not."""
    found = _open.get(config)
    if found is not None:
        return found
    with _lock:
        if config not in _open:
            _open[config] = HostSource(config)
        return _open[config]


def close(config: "ArrayRecordSourceConfig") -> None:
    """Close the source of `config`, if it is open; it opens again when it is next used."""
    with _lock:
        found = _open.pop(config, None)
    if found is not None:
        found.close()


def _close_all() -> None:
    for config in list(_open):
        close(config)


def _start_anew() -> None:
    # A forked child has the parent's readers but not their threads: touching one, even to free it, can hang.
    global _lock
    _lock = threading.RLock()
    _left_behind.extend(_open.values())
    _open.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_start_anew)
