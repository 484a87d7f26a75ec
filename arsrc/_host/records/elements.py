"""Decoded elements by record id: files, codec and cache."""

from collections.abc import Iterator
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.progress import track
from arsrc._host.machine.stopping import Stop, check
from arsrc._host.records.cache import ElementCache
from arsrc._host.records.decoding import Decoding
from arsrc._host.records.faults import Faults, Rows
from arsrc._host.records.leaves import Decoder, Leaves
from arsrc._host.records.selected import Records
from arsrc._host.records.stoppable import Stoppable
from arsrc.errors import ArsrcIndexError
from arsrc.order.plan import PAD_ID
from arsrc.record_batch import RecordBatch

_SPAN_ROWS = 512  # a second of a slow codec, so that a progress bar moves
_SPAN_BYTES = 32 * 2**20


class Elements:
    """Reads and decodes records by id.

    Attributes:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
        num_bytes: Decoded bytes of one element.
        cache: Where decoded elements are kept, None if they are not.
        faults: The bad records that were met.
        label: What names the source in errors and profiles.
    """

    def __init__(
        self,
        source: Records,
        decoder: Decoder,
        cache: ElementCache | None,
        metrics: Metrics,
        faults: Faults,
        label: str,
    ) -> None:
        self._source, self._metrics = source, metrics
        self._decoding = Decoding(source, decoder, label)
        self.cache, self.faults, self.label = cache, faults, label
        self.num_records = source.num_records
        self.shapes = decoder.shapes
        self.num_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.shapes)

    def read(
        self,
        record_ids: NDArray[np.uint32],
        stop: Stop | None = None,
        masks: bool = False,
        outs: Leaves | None = None,
    ) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf; rows with the padding id are zero.

        Args:
            record_ids: u32[...]
            stop: Says whether to end between two records.
            masks: Whether a record that cannot be read or decoded is a row of zeros, and no error; there is one more
                leaf then, bool[...], which rows hold a record.
            outs: Arrays like the results, which may be used for them.

        Raises:
            ArsrcIndexError: An id is not in the data set.
            ArsrcReadError: A file cannot be read.
            ArsrcValueError: A record does not fit the codec, or the codec does not do what it should.
        """
        ids = record_ids.ravel().astype(np.int64)
        valid = ids != PAD_ID
        if valid.all():
            leaves = self._read_valid(ids, stop, masks, self._memory_of(outs))
        else:
            found = self._read_valid(ids[valid], stop, masks, None)
            leaves = [np.zeros((len(ids), *leaf.shape[1:]), leaf.dtype) for leaf in found]
            for whole, leaf in zip(leaves, found, strict=True):
                whole[valid] = leaf
        return _shaped(leaves, record_ids.shape)

    def locate(self, record_ids: NDArray[np.uint32]) -> Located | None:
        """Return where records lie whose bytes can be copied from there; None: use `read`."""
        if self.cache is not None:
            return None
        return self._source.locate(record_ids.ravel().astype(np.int64))

    def copy(
        self,
        located: Located,
        record_ids: NDArray[np.uint32],
        outs: Leaves | None,
        stop: Stop | None = None,
        masks: bool = False,
    ) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf, like `read`.

        Args:
            located: What `locate` found for the ids, none of which may be the padding id.
            record_ids: u32[...]
            outs: Arrays like the results, which may be used for them.
            stop: Says whether to end between two records.
            masks: As for `read`.
        """
        start, out = perf_counter(), self._memory_of(outs)
        if out is not None and len(out) != located.num_bytes:
            out = None
        rows = Rows(record_ids.ravel().astype(np.int64), self.faults, masks)
        leaves = self._decode(self._source.copy(located, out, rows.fail), rows, record_ids.size, start, stop)
        return _shaped(rows.complete(leaves), record_ids.shape)

    def read_once(self, record_ids: NDArray[np.uint32], stop: Stop | None = None, masks: bool = False) -> Leaves:
        """Return what `read` does, reading an id that stands in several places only once."""
        unique, place = np.unique(record_ids, return_inverse=True)
        return [leaf[place.reshape(record_ids.shape)] for leaf in self.read(unique, stop, masks)]

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        return self._source.where(record_id)

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, some hundreds at a time, and show how far they are."""
        rows = max(1, min(_SPAN_ROWS, _SPAN_BYTES // max(self.num_bytes, 1)))
        for start in track(range(0, self.num_records, rows), label, self.num_records, rows):
            yield np.arange(start, min(start + rows, self.num_records), dtype=np.uint32)

    def _memory_of(self, outs: Leaves | None) -> NDArray[np.uint8] | None:
        """Return the memory of results, where records may be put: perhaps they are the elements as they stand."""
        return outs[0].reshape(-1).view(np.uint8) if outs is not None and len(self.shapes) == 1 else None

    def _read_valid(
        self, ids: NDArray[np.int64], stop: Stop | None, masks: bool, out: NDArray[np.uint8] | None
    ) -> Leaves:
        outside = ids >= self.num_records
        if outside.any():
            raise ArsrcIndexError(
                "take", f"no such record: the data set has {self.num_records}", record_id=int(ids[outside][0])
            )
        rows = Rows(ids, self.faults, masks)
        leaves = self._decoded(rows, stop, out) if self.cache is None else self._cached(self.cache, rows, stop, masks)
        return rows.complete(leaves)

    def _cached(self, cache: ElementCache, rows: Rows, stop: Stop | None, masks: bool) -> Leaves:
        """Return the leaves of rows that are good, from the cache where they are there."""

        def load(missing: NDArray[np.int64]) -> tuple[NDArray[np.int64], Leaves]:
            some = Rows(missing, self.faults, masks)
            leaves = self._decoded(some, stop, None)
            if some.bad is None:
                return missing, leaves
            rows.bad = np.isin(rows.ids, missing[some.bad])
            return missing[~some.bad], leaves

        leaves, hits = cache.get(rows.ids, load)
        self._metrics.add(cache_hits=hits)
        return leaves if rows.bad is None else [leaf[~rows.bad] for leaf in leaves]

    def _decoded(self, rows: Rows, stop: Stop | None, out: NDArray[np.uint8] | None) -> Leaves:
        with profile.annotate(f"arsrc: read records{self.label}"):
            start = perf_counter()
            records, num_decoded = self._source.read(rows.ids, rows.fail, out)
            return self._decode(records, rows, num_decoded, start, stop)

    def _decode(self, records: RecordBatch, rows: Rows, num_decoded: int, start: float, stop: Stop | None) -> Leaves:
        """Decode the records of those rows that are good, of which more may turn out bad.

        Reading them began at `start`; both are counted.
        """
        if stop is not None:
            check(stop)
            records = Stoppable(records.data, records.offsets, stop)
        num_records, num_bytes = len(records), records.data.nbytes
        codec_start = perf_counter()
        try:
            leaves = self._decoding.decode(records, rows)
        finally:
            end = perf_counter()
            self._metrics.add(
                records_read=num_records,
                bytes_read=num_bytes,
                records_decoded=num_decoded,
                bytes_decoded=num_bytes * num_decoded // max(num_records, 1),
                seconds_read=end - start,
                seconds_in_codec=end - codec_start,
            )
        check(stop)  # once more: a codec that catches everything goes on without the records that it did not get
        return leaves


def _shaped(leaves: Leaves, shape: tuple[int, ...]) -> Leaves:
    return [leaf.reshape(*shape, *leaf.shape[1:]) for leaf in leaves]
