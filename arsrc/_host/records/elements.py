"""Decoded elements by record id: files, codec and cache."""

import dataclasses
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.progress import track
from arsrc._host.machine.stopping import Stop, check
from arsrc._host.records.cache import ElementCache
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.leaves import Decoder, Leaves
from arsrc.errors import ArsrcError, ArsrcIndexError, ArsrcValueError, RecordError
from arsrc.order.plan import PAD_ID
from arsrc.own_code import raised_at
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
        label: What names the source in errors and profiles.
    """

    def __init__(
        self, data_set: DataSet, decoder: Decoder, cache: ElementCache | None, metrics: Metrics, label: str
    ) -> None:
        self._data_set, self._decoder, self._metrics = data_set, decoder, metrics
        self.cache, self.label = cache, label
        self.num_records = data_set.num_records
        self.shapes = decoder.shapes
        self.num_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.shapes)

    def read(self, record_ids: NDArray[np.uint32], stop: Stop | None = None) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf; rows with the padding id are zero.

        Args:
            record_ids: u32[...]
            stop: Says whether to end between two records.

        Raises:
            ArsrcIndexError: An id is not in the data set.
            ArsrcReadError: A file cannot be read.
            ArsrcValueError: A record does not fit the codec.
        """
        ids = record_ids.ravel().astype(np.int64)
        valid = ids != PAD_ID
        if valid.all():
            leaves = self._read_valid(ids, stop)
        else:
            leaves = [np.zeros((len(ids), *shape), dtype) for shape, dtype in self.shapes]
            for leaf, found in zip(leaves, self._read_valid(ids[valid], stop), strict=True):
                leaf[valid] = found
        return [leaf.reshape(*record_ids.shape, *leaf.shape[1:]) for leaf in leaves]

    def locate(self, record_ids: NDArray[np.uint32]) -> Located | None:
        """Return where records lie whose bytes can be copied from there; None: use `read`."""
        if self.cache is not None:
            return None
        return self._data_set.locate(record_ids.ravel().astype(np.int64))

    def copy(
        self, located: Located, record_ids: NDArray[np.uint32], outs: Leaves | None, stop: Stop | None = None
    ) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf, like `read`.

        Args:
            located: What `locate` found for the ids, none of which may be the padding id.
            record_ids: u32[...]
            outs: Arrays like the results, which may be used for them.
            stop: Says whether to end between two records.
        """
        start, out = perf_counter(), None
        if outs is not None and len(outs) == 1 and outs[0].nbytes == located.num_bytes:
            # So many bytes are in the records: perhaps they are the elements as they stand.
            out = outs[0].reshape(-1).view(np.uint8)
        leaves = self._decode(self._data_set.copy(located, out), record_ids.ravel(), record_ids.size, start, stop)
        return [leaf.reshape(*record_ids.shape, *leaf.shape[1:]) for leaf in leaves]

    def read_once(self, record_ids: NDArray[np.uint32], stop: Stop | None = None) -> Leaves:
        """Return what `read` does, reading an id that stands in several places only once."""
        unique, place = np.unique(record_ids, return_inverse=True)
        return [leaf[place.reshape(record_ids.shape)] for leaf in self.read(unique, stop)]

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, some hundreds at a time, and show how far they are."""
        rows = max(1, min(_SPAN_ROWS, _SPAN_BYTES // max(self.num_bytes, 1)))
        for start in track(range(0, self.num_records, rows), label, self.num_records, rows):
            yield np.arange(start, min(start + rows, self.num_records), dtype=np.uint32)

    def _read_valid(self, ids: NDArray[np.int64], stop: Stop | None) -> Leaves:
        outside = ids >= self.num_records
        if outside.any():
            raise ArsrcIndexError(
                "take", f"no such record: the data set has {self.num_records}", record_id=int(ids[outside][0])
            )
        if self.cache is None:
            return self._decoded(ids, stop)
        leaves, hits = self.cache.get(ids, lambda missing: self._decoded(missing, stop))
        self._metrics.add(cache_hits=hits)
        return leaves

    def _decoded(self, ids: NDArray[np.int64], stop: Stop | None) -> Leaves:
        with profile.annotate(f"arsrc: read records{self.label}"):
            start = perf_counter()
            return self._decode(self._data_set.read(ids), ids, self._data_set.num_decoded(ids), start, stop)

    def _decode(
        self, records: RecordBatch, ids: NDArray[np.integer[Any]], num_decoded: int, start: float, stop: Stop | None
    ) -> Leaves:
        """Decode records whose reading began at `start`, and count both."""
        if stop is not None:
            check(stop)
            records = _Stoppable(records.data, records.offsets, stop)
        num_records, num_bytes = len(ids), records.data.nbytes
        codec_start = perf_counter()
        try:
            leaves = self._decoder.decode(records)
        except RecordError as error:
            raise with_place(error, int(ids[error.row]), self._data_set, self.label) from error
        except (ArsrcError, MemoryError):
            raise
        except Exception as error:  # of a codec of the user's own
            what = f"the codec {type(self._decoder.codec).__name__} raised {type(error).__name__}: {error}"
            fix = f"Let it raise RecordError(row, what), so that the record is named. {raised_at(error)}".rstrip()
            shown = [*ids[:8].tolist(), *(["..."] if len(ids) > 8 else [])]
            raise ArsrcValueError(f"decode{self.label}", what, fix, record_ids=shown) from error
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Stoppable(RecordBatch):
    """Records of which no more are given out when `stop` says so: codecs that go record by record end there."""

    stop: Stop

    def __getitem__(self, row: int) -> bytes:
        check(self.stop)
        return super().__getitem__(row)


def with_place(error: RecordError, record_id: int, data_set: DataSet, label: str) -> ArsrcValueError:
    """Return a codec's error with the record's place in the data set instead of its row."""
    path, position = data_set.where(record_id)
    what = f"record {record_id} (record {position} of {path!r}): {error.what}"
    return ArsrcValueError(f"decode{label}", what, error.fix).at(path, position, record_id)
