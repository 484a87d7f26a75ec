"""One open source: ids to decoded leaves, and requests to batches."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arsrc import arithmetic, block_order, order
from arsrc._host import files
from arsrc._host.cache import ElementCache, describe, open_cache
from arsrc._host.dataset import DataSet
from arsrc._host.metrics import Metrics
from arsrc._host.progress import track
from arsrc._host.read_ahead import Leaves, Loaded, ReadAhead, Request
from arsrc._host.windows import Windows
from arsrc.block_order import Blocks
from arsrc.codecs.base import Codec, RecordBatch
from arsrc.codecs.check import check_batch, leaf_shapes
from arsrc.errors import ArsrcIndexError, ArsrcValueError, RecordError, message

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig

Array = NDArray[Any]

_SPAN_ROWS = 4096
_SPAN_BYTES = 32 * 2**20


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
        self.plan = _plan(config, self.data_set)
        self._check_plan()
        self.codec = config.codec.resolve(self.data_set.read(np.zeros(1, np.int64))[0])
        self.schema = Schema(config, self.plan, self.codec)
        self.element_spec = self.codec.element_spec()
        self._shapes = leaf_shapes(self.element_spec)
        self._element_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self._shapes)
        self._cache = self._open_cache() if config.cacheable else None
        self._windows = self._open_windows()
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

    def _open_cache(self) -> ElementCache:
        def identity() -> str:
            return f"{self.data_set.content_hash()} {describe(self.codec)}"

        read = self.config.read
        return open_cache(self.plan.num_records, self._shapes, read.cache_bytes, read.cache_dir, identity)

    def _open_windows(self) -> Windows | None:
        """Windows pay where a record cannot be read without its neighbours; two must fit, this and the next."""
        if self.plan.blocks is None or not self.data_set.is_grouped:
            return None
        window_bytes = self.plan.blocks.window_size * self._element_bytes
        max_windows = min(4, self.config.read.read_ahead_bytes // max(window_bytes, 1))
        return Windows(max_windows) if max_windows >= 2 else None

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

    @property
    def num_decoded_bytes(self) -> int:
        """Bytes of the whole decoded data set."""
        return self.plan.num_records * self._element_bytes

    def all_elements(self, label: str) -> Leaves:
        """Return one array `[num_records, ...]` per leaf, of every record."""
        arrays: Leaves = [np.empty((self.plan.num_records, *shape), dtype) for shape, dtype in self._shapes]
        for ids in self.spans(label):
            for array, leaf in zip(arrays, self.elements(ids), strict=True):
                array[ids[0] : ids[-1] + 1] = leaf
        return arrays

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, u32[...] at a time, and show how far they are."""
        rows = max(1, min(_SPAN_ROWS, _SPAN_BYTES // max(self._element_bytes, 1)))
        num_records = self.plan.num_records
        for start in track(range(0, num_records, rows), num_records, label):
            yield np.arange(start, min(start + rows, num_records), dtype=np.uint32)

    def reset_cache(self) -> None:
        """Forget cached elements."""
        if self._cache is not None:
            self._cache.clear()

    def close(self) -> None:
        """Close files and threads."""
        self._ahead.close()
        if self._cache is not None:
            self._cache.close()
        self.data_set.close()

    def _load(self, requests: Sequence[Request]) -> list[Loaded]:
        """Load consecutive requests of one stream together."""
        with self.metrics.timed("seconds_read"):
            position, epoch, valid = self._positions(requests)
            key_words = np.array(requests[0].key_words, np.uint32)
            ids = order.record_at(np, self.plan, key_words, epoch, position)
            ids = np.where(valid, ids, np.uint32(arithmetic.PAD_ID))
            if self._windows is None:
                leaves = self.elements(ids)
            else:
                leaves = self._by_window(key_words, position, epoch, valid)
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

    def _positions(self, requests: Sequence[Request]) -> tuple[Array, Array, Array]:
        """Return `(position, epoch, valid)` of consecutive requests' rows, u32[num_requests, num_batches, rows]."""
        first = requests[0]
        steps = np.arange(first.num_batches, dtype=np.uint32)
        index, epoch = arithmetic.advance(np, self.plan, *_state_of(requests), steps)  # u32[requests, num_batches]
        position, epoch, valid = arithmetic.rows(np, self.plan, index, epoch)
        rows = self.plan.batch_size // first.num_shards
        shard = slice(first.shard * rows, (first.shard + 1) * rows)
        epoch = epoch if epoch.shape[-1] == 1 else epoch[..., shard]
        return position[..., shard], epoch, valid[..., shard]

    def _by_window(self, key_words: Array, position: Array, epoch: Array, valid: Array) -> Leaves:
        """Return leaves `[*position.shape, ...]`, taken out of whole windows."""
        blocks = self.plan.blocks
        assert blocks is not None and self._windows is not None
        slot = block_order.slot_of(np, blocks, key_words, epoch, position)
        epoch = np.broadcast_to(epoch, slot.shape)
        window, row = slot // np.uint32(blocks.window_size), slot % np.uint32(blocks.window_size)
        leaves = [np.zeros((*slot.shape, *shape), dtype) for shape, dtype in self._shapes]
        wanted = np.stack([epoch[valid], window[valid]], axis=-1)  # u32[num_valid, 2]
        for one_epoch, one in np.unique(wanted, axis=0).tolist():
            first = one * blocks.window_size
            size = min(blocks.window_size, self.plan.num_records - first)

            def load(epoch: int = one_epoch, first: int = first, size: int = size) -> Leaves:
                slots = np.arange(first, first + size, dtype=np.uint32)
                ids = block_order.record_in_slot(np, blocks, key_words, np.array([epoch], np.uint32), slots)
                return self.elements(ids)

            whole = self._windows.get((key_words.tobytes(), one_epoch, one), load)
            here = valid & (epoch == one_epoch) & (window == one)
            for leaf, found in zip(leaves, whole, strict=True):
                leaf[here] = found[row[here]]
        return leaves

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


def _plan(config: "ArrayRecordSourceConfig", data_set: DataSet) -> order.Plan:
    num_records = data_set.num_records
    by_block = config.shuffle_records and config.shuffle_block_size > 1
    by_file = config.shuffle_files and not config.shuffle_records
    window_size = config.shuffle_block_size * config.shuffle_window_blocks
    return order.Plan(
        num_records=num_records,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        remainder=config.remainder,
        shuffle_records=config.shuffle_records,
        file_sizes=tuple(data_set.sizes.tolist()) if by_file else (),
        blocks=Blocks(num_records, config.shuffle_block_size, window_size) if by_block else None,
    )
