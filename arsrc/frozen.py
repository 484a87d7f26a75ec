"""Frozen values: how they are hashed, compared and shown."""

import copy
import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np


class HashOnce:
    """Base of frozen dataclasses that are hashed at every call and may hold 100,000 paths: hash once.

    A subclass says `__hash__ = HashOnce.__hash__`, or `dataclass` would write its own.
    """

    def __hash__(self) -> int:
        cached = self.__dict__.get("_hash")
        if cached is None:
            cached = hash(tuple(self.__getstate__().values()))
            self.__dict__["_hash"] = cached
        return int(cached)

    def __getstate__(self) -> dict[str, Any]:
        # Hashes of strings differ between processes: the cached one must not travel.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


class Terse:
    """Base of dataclasses that show what is not as by default; a subclass says `repr=False`."""

    def __repr__(self) -> str:
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self)  # type: ignore[arg-type]
        changed = [field.name for field in fields if field.repr and getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{name}={self._shown(name)}' for name in changed)})"

    def _shown(self, field: str) -> str:
        value = getattr(self, field)
        return str(getattr(value, "__qualname__", repr(value)))  # functions by their names


class FrozenStats(Mapping[str, Any]):
    """Statistics that nobody can change: a mapping with copies of its own, that gives out copies.

    Two of them are equal if they hold the same, arrays by their content.
    """

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self._stats = copy.deepcopy(dict(stats))
        self._content = _content(self._stats)

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._stats[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stats)

    def __len__(self) -> int:
        return len(self._stats)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenStats):
            return NotImplemented
        return self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenStats, (self._stats,)

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"


def _content(value: Any) -> Hashable:
    """Return what tells a value from others."""
    if isinstance(value, Mapping):
        return frozenset((key, _content(item)) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_content, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(_content(getattr(value, field.name)) for field in dataclasses.fields(value))
    array = np.asarray(value)
    return value if array.dtype.hasobject else (str(array.dtype), array.shape, array.tobytes())
