"""Functions that worker processes decode by, in a module that they can import, as a user's would be."""

import collections
import ctypes
import os
import signal
import sys
import time
from typing import Any, NamedTuple

import numpy as np

NUM_VALUES = 6


class Pair(NamedTuple):
    """Two arrays."""

    values: Any
    first: Any


def number(record: bytes) -> int:
    """The number that a record begins with."""
    return int.from_bytes(record[:2], "little")


def int32_number(record: bytes) -> np.int32:
    return np.int32(number(record))


def values(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.uint8, NUM_VALUES)[::-1].astype(np.int32) * 3


def tree(record: bytes) -> dict[str, Any]:
    row = np.frombuffer(record, np.uint8, NUM_VALUES)
    return {"b": [row, None], "a": Pair(row[::-1].astype(np.float32), row[0]), "length": len(record), "is": True}


def ordered(record: bytes) -> Any:
    """A container that is none of Python's plain ones."""
    return collections.OrderedDict(b=np.int32(number(record)), a=np.frombuffer(record, np.uint8, NUM_VALUES))


class Wrapped:
    """What NumPy takes for an array, and is none."""

    def __init__(self, record: bytes) -> None:
        self._record = record

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.frombuffer(self._record, np.uint8, 2)


def wrapped(record: bytes) -> Wrapped:
    return Wrapped(record)


def process_id(record: bytes) -> np.int64:
    time.sleep(0.01)
    return np.int64(os.getpid())


def elsewhere(pid: int, record: bytes) -> np.int32:
    """A number, but in one process."""
    if os.getpid() == pid:
        raise RuntimeError("it runs where it should not")
    return int32_number(record)


def jax_array(record: bytes) -> Any:
    import jax.numpy as jnp

    return jnp.zeros(2)


def text(record: bytes) -> dict[str, Any]:
    return {"a": 1, "b": ["text"]}


def nothing(record: bytes) -> None:
    """No array."""


def not_picklable(record: bytes) -> memoryview:
    """What NumPy takes for an array, and no process can give to another."""
    return memoryview(record)[:2]


def has_package(record: bytes) -> bool:
    return bool({"jax", "arsrc"} & sys.modules.keys())


def act(actions: frozenset[tuple[int, str]], record: bytes) -> Any:
    """Do something that goes wrong, for some records."""
    action = dict(actions).get(number(record))
    if action is None:
        return np.int32(number(record))
    if action == "raise":
        raise KeyError(f"no label {number(record)}")
    if action == "leave":
        sys.exit("enough")
    if action == "memory":
        raise MemoryError
    if action == "exit":
        os._exit(3)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "crash":
        ctypes.string_at(0)
    if action == "sleep":
        time.sleep(3600)
    return {"dtype": np.float32(1), "shape": np.zeros(2, np.int32), "tree": (np.int32(1), np.int32(2))}[action]


def die_once(marker: str, record: bytes) -> np.int32:
    """End the process the first time that one record comes."""
    if number(record) == 27 and not os.path.exists(marker):
        with open(marker, "w"):
            os._exit(1)
    return np.int32(number(record))
