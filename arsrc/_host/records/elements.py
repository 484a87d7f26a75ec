"""Elements by the numbers of their rows: read, or taken from a cache."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.progress import track
from arsrc._host.machine.stopping import Stop
from arsrc._host.records.cache import ElementCache
from arsrc._host.records.faults import Faults, Rows
from arsrc._host.records.leaves import Leaves
from arsrc._host.records.record_rows import RowReader
from arsrc.errors import ArsrcIndexError
from arsrc.order.plan import PAD_ID

_SPAN_ROWS = 512  # a second of a slow codec, so that a progress bar moves
_SPAN_BYTES = 32 * 2**20


def all_spans(num_records: int, num_bytes: int, label: str) -> Iterator[NDArray[np.uint32]]:
    """Yield the ids of all rows of so many bytes in order, some hundreds at a time, and show how far they are."""
    rows = max(1, min(_SPAN_ROWS, _SPAN_BYTES // max(num_bytes, 1)))
    for start in track(range(0, num_records, rows), label, num_records, rows):
        yield np.arange(start, min(start + rows, num_records), dtype=np.uint32)


def refuse_outside(ids: NDArray[np.int64], num_records: int) -> None:
    """Raise `ArsrcIndexError` for ids that no record has."""
    outside = ids >= num_records
    if outside.any():
        what = f"no such record: the data set has {num_records}"
        raise ArsrcIndexError("take", what, record_id=int(ids[outside][0]))


def each_once(read: Callable[[NDArray[np.uint32]], Leaves], record_ids: NDArray[np.uint32]) -> Leaves:
    """Return what `read` gives for ids, which is asked once for each that stands in several places."""
    unique, place = np.unique(record_ids, return_inverse=True)
    return [leaf[place.reshape(record_ids.shape)] for leaf in read(unique)]


class Elements:
    """Reads rows, decoded.

    Attributes:
        num_records: How many rows there are.
        shapes: Shape and dtype of each leaf of an element.
        num_bytes: Decoded bytes of one element.
        cache: Where decoded elements are kept, None if they are not.
        faults: The bad records that were met.
        label: What names the source in errors and profiles.
    """

    def __init__(
        self, reader: RowReader, cache: ElementCache | None, metrics: Metrics, faults: Faults, label: str
    ) -> None:
        self._reader, self._metrics = reader, metrics
        self.cache, self.faults, self.label = cache, faults, label
        self.num_records, self.shapes = reader.num_rows, reader.shapes
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
            leaves = self._read_valid(ids, stop, masks, outs)
        else:
            found = self._read_valid(ids[valid], stop, masks, None)
            leaves = [np.zeros((len(ids), *leaf.shape[1:]), leaf.dtype) for leaf in found]
            for whole, leaf in zip(leaves, found, strict=True):
                whole[valid] = leaf
        return _shaped(leaves, record_ids.shape)

    def locate(self, record_ids: NDArray[np.uint32]) -> Located | None:
        """Return where records lie whose bytes can be copied from there; None: use `read`."""
        return None if self.cache is not None else self._reader.locate(record_ids.ravel().astype(np.int64))

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
        rows = Rows(record_ids.ravel().astype(np.int64), self.faults, masks)
        leaves = self._reader.copy(located, rows, stop, outs)
        return _shaped(rows.complete(leaves), record_ids.shape)

    def read_once(self, record_ids: NDArray[np.uint32], stop: Stop | None = None, masks: bool = False) -> Leaves:
        """Return what `read` does, reading an id that stands in several places only once."""
        return each_once(lambda ids: self.read(ids, stop, masks), record_ids)

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, some hundreds at a time, and show how far they are."""
        return all_spans(self.num_records, self.num_bytes, label)

    def _read_valid(self, ids: NDArray[np.int64], stop: Stop | None, masks: bool, outs: Leaves | None) -> Leaves:
        refuse_outside(ids, self.num_records)
        rows = Rows(ids, self.faults, masks)
        if self.cache is None:
            leaves = self._reader.read(rows, stop, outs)
        else:
            leaves = self._cached(self.cache, rows, stop, masks)
        return rows.complete(leaves)

    def _cached(self, cache: ElementCache, rows: Rows, stop: Stop | None, masks: bool) -> Leaves:
        """Return the leaves of rows that are good, from the cache where they are there."""
        lacking: list[tuple[NDArray[np.int64], Leaves]] = []  # rows that are not to be kept

        def load(missing: NDArray[np.int64]) -> tuple[NDArray[np.int64], Leaves]:
            some = Rows(missing, self.faults, masks)
            leaves = self._reader.read(some, stop, None)
            if some.bad is not None:
                rows.bad = np.isin(rows.ids, missing[some.bad])
                missing = missing[~some.bad]
            if some.lacks is not None:
                lacks = some.lacks if some.bad is None else some.lacks[~some.bad]
                lacking.append((missing[lacks], [leaf[lacks] for leaf in leaves]))
                missing, leaves = missing[~lacks], [leaf[~lacks] for leaf in leaves]
            return missing, leaves

        leaves, hits = cache.get(rows.ids, load)
        for ids, some in lacking:
            unique, first = np.unique(ids, return_index=True)
            at = np.flatnonzero(np.isin(rows.ids, unique))
            for leaf, one in zip(leaves, some, strict=True):
                leaf[at] = one[first[np.searchsorted(unique, rows.ids[at])]]
        self._metrics.add(cache_hits=hits)
        return leaves if rows.bad is None else [leaf[~rows.bad] for leaf in leaves]


def _shaped(leaves: Leaves, shape: tuple[int, ...]) -> Leaves:
    return [leaf.reshape(*shape, *leaf.shape[1:]) for leaf in leaves]
