"""Records of several batches, put together in another order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc.record_batch import RecordBatch, uniform_offsets


def in_order(parts: Sequence[tuple[NDArray[np.int64], RecordBatch]]) -> RecordBatch:
    """Return the records of all parts, by ascending rows."""
    if len(parts) == 1 and (np.diff(parts[0][0]) > 0).all():
        return parts[0][1]
    if not parts:
        return RecordBatch.from_records([])
    rows = np.concatenate([rows for rows, _ in parts])
    lengths = np.concatenate([batch.lengths for _, batch in parts])
    order = np.argsort(rows, kind="stable")
    if (lengths == lengths[0]).all():
        places = np.empty(len(rows), np.int64)
        places[order] = np.arange(len(rows))
        length, done = int(lengths[0]), 0
        data = np.empty((len(rows), length), np.uint8)
        for some, batch in parts:
            data[places[done : done + len(some)]] = batch.data.reshape(len(some), length)
            done += len(some)
        return RecordBatch(data.reshape(-1), uniform_offsets(len(rows), length))
    records = [batch[row] for _, batch in parts for row in range(len(batch))]
    return RecordBatch.from_records([records[at] for at in order.tolist()])


def take(batch: RecordBatch, rows: NDArray[np.int64]) -> RecordBatch:
    """Return some records of a batch."""
    lengths = batch.lengths
    if len(lengths) and (lengths == lengths[0]).all():
        length = int(lengths[0])
        data = batch.data.reshape(len(batch), length)[rows]
        return RecordBatch(data.reshape(-1), uniform_offsets(len(rows), length))
    memory = batch.data.data
    begins, ends = batch.offsets[rows].tolist(), batch.offsets[rows + 1].tolist()
    return RecordBatch.from_records([memory[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True)])
