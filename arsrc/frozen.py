"""Hashing of large frozen dataclasses."""

import dataclasses
from typing import Any


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
