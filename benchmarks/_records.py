"""Reading records through array_record's own reader, as loaders with worker processes do; no JAX in here.

Worker processes import this module: what they run must be importable, and quick to import.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from _data import Bytes, DataSet
from array_record.python.array_record_module import ArrayRecordReader

# The fastest options for random access that we found.
OPTIONS: dict[str, Any] = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 4096}


def join(records: Sequence[bytes]) -> Bytes:
    """Return records of one length as u8[n, record_bytes]."""
    return np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)


def as_tensor(records: Sequence[bytes]) -> Any:
    """Return records of one length as a tensor, which PyTorch sends through shared memory."""
    import torch

    return torch.from_numpy(np.array(join(records)))


class Readers:
    """One reader for each file, opened when first used; `readers[ids]` in the terms of `DataSet`.

    It can be sent to other processes, and is a data set as PyTorch has them, with batched access.
    """

    def __init__(self, data: DataSet) -> None:
        self._data, self._starts = data, data.starts

    def __getstate__(self) -> dict[str, Any]:
        return {"_data": self._data, "_starts": self._starts}

    @functools.cached_property
    def readers(self) -> list[Any]:
        """The readers in the order of the files."""
        return [ArrayRecordReader(path, **OPTIONS) for path in self._data.paths]

    def __len__(self) -> int:
        return self._data.num_records

    def __getitem__(self, record_id: int) -> bytes:
        shard = int(np.searchsorted(self._starts, record_id, side="right")) - 1
        record: bytes = self.readers[shard].read([record_id - int(self._starts[shard])])[0]
        return record

    def __getitems__(self, record_ids: Sequence[int]) -> list[bytes]:
        return self.read(self.plan(np.asarray(record_ids)))

    def plan(self, record_ids: Any) -> list[tuple[int, list[int]]]:
        """Return what to read of each file: `(shard, positions)`. The order of the ids is lost."""
        if self._data.num_shards == 1:
            return [(0, record_ids.tolist())]
        shards = np.searchsorted(self._starts, record_ids, side="right") - 1
        parts = ((shard, np.flatnonzero(shards == shard)) for shard in np.unique(shards).tolist())
        return [(shard, (record_ids[rows] - self._starts[shard]).tolist()) for shard, rows in parts]

    def read(self, plan: list[tuple[int, list[int]]]) -> list[bytes]:
        """Return the records of a plan."""
        records: list[bytes] = []
        for shard, positions in plan:
            records += self.readers[shard].read(positions)
        return records

    def close(self) -> None:
        """Close the readers."""
        for reader in self.__dict__.pop("readers", ()):
            reader.close()
