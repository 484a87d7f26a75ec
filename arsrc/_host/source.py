"""One open source: ids to decoded leaves, and requests to batches."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc import arithmetic, order
from arsrc._host import files
from arsrc._host.cache import ElementCache
from arsrc._host.dataset import DataSet
from arsrc._host.metrics import Metrics
from arsrc._host.read_ahead import Leaves, Loaded, ReadAhead, Request
from arsrc.codecs.base import Codec, RecordBatch
from arsrc.codecs.check import check_batch, leaf_shapes
from arsrc.errors import ArsrcIndexError, ArsrcValueError, RecordError, message

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a trace depends on: the config, and what its files turned out to hold."""

    config: "ArrayRecordSourceConfig"
    plan: order.Plan
    codec: Codec


class HostSource:
    """The open files of one config, with its codec, cache and read-ahead.

    Attributes:
        config: The config it was opened for.
        schema: The config with the data set's numbers and the codec resolved with its first record.
        plan: The static numbers of the data set and its order.
        codec: The resolved codec.
        element_spec: PyTree of one element's `ShapeDtypeStruct`s.
        data_set: The files.
        metrics: What was read so far.
    """

    def __init__(self, config: "ArrayRecordSourceConfig") -> None:
        self.config = config
        self.metrics = Metrics()
        self.data_set = DataSet(files.expand(config.paths), config.read.max_open_files, config.read.num_threads)
        self.plan = order.Plan(
            num_records=self.data_set.num_records,
            batch_size=config.batch_size,
            num_epochs=config.num_epochs,
            remainder=config.remainder,
            shuffle_records=config.shuffle_records,
            file_sizes=tuple(self.data_set.sizes.tolist())
            if config.shuffle_files and not config.shuffle_records
            else (),
        )
        self._check_plan()
        self.codec = config.codec.resolve(self.data_set.read(np.zeros(1, np.int64))[0])
        self.schema = Schema(config, self.plan, self.codec)
        self.element_spec = self.codec.element_spec()
        self._shapes = leaf_shapes(self.element_spec)
        self._element_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self._shapes)
        self._cache = (
            ElementCache(self.plan.num_records, self._shapes, config.read.cache_bytes) if config.cacheable else None
        )
        self._ahead = ReadAhead(
            self._load,
            self._following,
            self._size_of,
            config.read.read_ahead_bytes,
            config.read.num_threads,
            self.metrics,
        )

    def _check_plan(self) -> None:
        if self.plan.steps_per_epoch == 0:
            raise ArsrcValueError(
                message(
                    "batch_size",
                    f"is larger than the data set ({self.plan.num_records} records) and remainder is 'drop'",
                    'Use a smaller batch_size, or remainder="pad" or "wrap".',
                    batch_size=self.plan.batch_size,
                )
            )

    def batches(self, request: Request) -> Loaded:
        """Return the batches of `request`, read ahead where possible."""
        self.metrics.add(batches_served=request.num_batches)
        return self._ahead.get(request)

    def is_ready(self, request: Request) -> bool:
        """Whether `batches(request)` would neither wait nor fail."""
        return self._ahead.is_ready(request)

    def is_exhausted(self, request: Request) -> bool:
        """Whether the last epoch lies behind a request."""
        epoch = arithmetic.settle(np, self.plan, *_state_of([request]))[1]
        return int(epoch[0, 0]) == self.plan.num_epochs

    def elements(self, record_ids: NDArray[np.uint32]) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf; rows with the padding id are zero.

        Raises:
            ArsrcIndexError: An id is not in the data set.
            ArsrcReadError: A file cannot be read.
            ArsrcValueError: A record does not fit the codec.
        """
        ids = record_ids.ravel().astype(np.int64)
        valid = ids != arithmetic.PAD_ID
        if valid.all():
            leaves = self._elements(ids)
        else:
            leaves = [np.zeros((len(ids), *shape), dtype) for shape, dtype in self._shapes]
            for leaf, found in zip(leaves, self._elements(ids[valid]), strict=True):
                leaf[valid] = found
        return [leaf.reshape(*record_ids.shape, *leaf.shape[1:]) for leaf in leaves]

    def reset_cache(self) -> None:
        """Forget cached elements."""
        if self._cache is not None:
            self._cache.clear()

    def close(self) -> None:
        """Close files and threads."""
        self._ahead.close()
        self.data_set.close()

    def _load(self, requests: Sequence[Request]) -> list[Loaded]:
        """Load consecutive requests of one stream together."""
        with self.metrics.timed("seconds_read"):
            ids = self._record_ids(requests)
            leaves = self.elements(ids)
        after = [*requests[1:], self._at(requests[-1], [requests[-1].num_batches])[0]]
        return [Loaded([leaf[row] for leaf in leaves], ids[row], after[row]) for row in range(len(requests))]

    def _following(self, request: Request, count: int) -> list[Request]:
        """Return the `count` requests after `request`; fewer where the last epoch ends."""
        later = self._at(request, [request.num_batches * ahead for ahead in range(1, count + 1)])
        return [one for one in later if one.epoch != self.plan.num_epochs]

    def _at(self, request: Request, steps: Sequence[int]) -> list[Request]:
        """Return `request` as it is `steps` batches later."""
        index, epoch = arithmetic.advance(np, self.plan, *_state_of([request]), np.array(steps, np.uint32))
        states = zip(index[0].tolist(), epoch[0].tolist(), strict=True)
        return [dataclasses.replace(request, index=index, epoch=epoch) for index, epoch in states]

    def _record_ids(self, requests: Sequence[Request]) -> NDArray[np.uint32]:
        """Return u32[num_requests, num_batches, rows], ids of consecutive requests; padding where no record is."""
        first = requests[0]
        steps = np.arange(first.num_batches, dtype=np.uint32)
        index, epoch = arithmetic.advance(np, self.plan, *_state_of(requests), steps)  # u32[requests, num_batches]
        position, epoch, valid = arithmetic.rows(np, self.plan, index, epoch)
        ids = order.record_at(np, self.plan, np.array(first.key_words, np.uint32), epoch, position)
        rows = self.plan.batch_size // first.num_shards
        shard = slice(first.shard * rows, (first.shard + 1) * rows)
        return np.where(valid, ids, np.uint32(arithmetic.PAD_ID))[..., shard]

    def _size_of(self, request: Request) -> tuple[int, int]:
        rows = request.num_batches * self.plan.batch_size // request.num_shards
        return rows, rows * self._element_bytes

    def _elements(self, ids: NDArray[np.int64]) -> Leaves:
        outside = ids >= self.plan.num_records
        if outside.any():
            raise ArsrcIndexError(
                message(
                    "take",
                    f"no such record: the data set has {self.plan.num_records}",
                    record_id=int(ids[outside][0]),
                )
            )
        if self._cache is None:
            return self._decoded(ids)
        leaves, hits = self._cache.get(ids, self._decoded)
        self.metrics.add(cache_hits=hits)
        return leaves

    def _decoded(self, ids: NDArray[np.int64]) -> Leaves:
        records = self.data_set.read(ids)
        self.metrics.add(records_read=len(ids), bytes_read=records.data.nbytes)
        return self._decode(records, ids)

    def _decode(self, records: RecordBatch, ids: NDArray[np.int64]) -> Leaves:
        try:
            return check_batch(self.codec.decode(records), self.element_spec, len(ids))
        except RecordError as error:
            record_id = int(ids[error.row])
            path, position = self.data_set.where(record_id)
            where = "decode" if self.config.name is None else f"decode ({self.config.name})"
            what = f"record {record_id} (record {position} of {path!r}): {error.what}"
            raise ArsrcValueError(message(where, what, error.fix)) from error


def _state_of(requests: Sequence[Request]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return (index, epoch) of each request, u32[num_requests, 1]."""
    states = np.array([(request.index, request.epoch) for request in requests], np.uint32)
    return states[:, :1], states[:, 1:]
