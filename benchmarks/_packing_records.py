"""Reading documents of tokens for Grain, as its workers do; no JAX in here.

Worker processes import this module: what they run must be importable, and quick to import.
"""

import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource


def as_tokens(record: bytes) -> dict[str, Any]:
    """Return a document as Grain packs it."""
    return {"tokens": np.frombuffer(record, "<i4")}


class ReadMany:
    """Reads as many records a call as it is given numbers, which Grain's own source does not."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths}

    @functools.cached_property
    def _source(self) -> Any:
        return ArrayRecordDataSource(self._paths)

    def __call__(self, record_ids: Any) -> list[bytes]:
        found: list[bytes] = self._source.__getitems__(record_ids.tolist())
        return found


class OneByOne(grain.experimental.FlatMapTransform):  # type: ignore[misc]
    """Makes documents of the records that were read at once."""

    def __init__(self, most: int) -> None:
        self.max_fan_out = most

    def flat_map(self, element: list[bytes]) -> list[dict[str, Any]]:
        """Return the documents."""
        return [as_tokens(record) for record in element]
