"""Rows that are one record each: read, and decoded by a codec."""

from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.stopping import Stop, check
from arsrc._host.records.decoding import Decoding
from arsrc._host.records.faults import Rows
from arsrc._host.records.leaves import Decoder, LeafShapes, Leaves
from arsrc._host.records.selected import Records
from arsrc._host.records.stoppable import Stoppable
from arsrc.record_batch import RecordBatch


class RowReader(Protocol):
    """What rows are made of.

    Attributes:
        num_rows: How many there are.
        shapes: Shape and dtype of each leaf of one.
    """

    num_rows: int
    shapes: LeafShapes

    def read(self, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return one array `[num_good, ...]` per leaf, of those rows that are good: more may turn out bad.

        Args:
            rows: Which.
            stop: Says whether to end between two records.
            outs: Arrays `[num_rows, ...]` like the results, which may be used for them.
        """
        ...

    def locate(self, ids: NDArray[np.int64]) -> Located | None:
        """Return where the bytes of rows can be copied from at any later time; None: use `read`."""
        ...

    def copy(self, located: Located, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return what `read` does for rows that `locate` found."""
        ...


class RecordRows:
    """Reads and decodes records. A `RowReader`.

    Args:
        source: Where they come from.
        decoder: Decodes them.
        metrics: Where reading is counted.
        label: What names the source in errors and profiles.
    """

    def __init__(self, source: Records, decoder: Decoder, metrics: Metrics, label: str) -> None:
        self._source, self._metrics = source, metrics
        self._decoding = Decoding(source, decoder, label)
        self._label = f"arsrc: read records{label}"
        self.num_rows, self.shapes = source.num_records, decoder.shapes

    def read(self, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return what `RowReader.read` does."""
        with profile.annotate(self._label):
            start = perf_counter()
            records, num_decoded = self._source.read(rows.ids, rows.fail, self._memory_of(outs))
            return self._decode(records, rows, num_decoded, start, stop)

    def locate(self, ids: NDArray[np.int64]) -> Located | None:
        """Return what `RowReader.locate` does."""
        return self._source.locate(ids)

    def copy(self, located: Located, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return what `RowReader.copy` does."""
        start, out = perf_counter(), self._memory_of(outs)
        if out is not None and len(out) != located.num_bytes:
            out = None
        return self._decode(self._source.copy(located, out, rows.fail), rows, len(rows.ids), start, stop)

    def _memory_of(self, outs: Leaves | None) -> NDArray[np.uint8] | None:
        """Return the memory of results, where records may be put: perhaps they are the elements as they stand."""
        return outs[0].reshape(-1).view(np.uint8) if outs is not None and len(self.shapes) == 1 else None

    def _decode(self, records: RecordBatch, rows: Rows, num_decoded: int, start: float, stop: Stop | None) -> Leaves:
        """Decode the records of those rows that are good, of which more may turn out bad.

        Reading them began at `start`; both are counted.
        """
        if stop is not None:
            check(stop)
            records = Stoppable(records.data, records.offsets, stop)
        codec_start = perf_counter()
        try:
            leaves = self._decoding.decode(records, rows)
        finally:
            self._metrics.read(len(records), records.data.nbytes, num_decoded, start, codec_start)
        check(stop)  # once more: a codec that catches everything goes on without the records that it did not get
        return leaves
