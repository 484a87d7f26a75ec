"""One open source: the files of a config, with codec, cache and read-ahead."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc import paths as files
from arsrc._host.machine import profile
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import is_forked
from arsrc._host.records.cache import open_cache
from arsrc._host.records.codec_identity import describe
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.elements import Elements, with_place
from arsrc._host.records.windows import Windows
from arsrc._host.serving.batches import Batches
from arsrc._host.serving.read_ahead import ReadAhead
from arsrc._host.serving.requests import Leaves, Loaded, Request
from arsrc.codecs.base import Codec
from arsrc.errors import ArsrcValueError, RecordError, message
from arsrc.order import record_order
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a trace depends on: the config, and what its files turned out to hold."""

    config: "ArrayRecordSourceConfig"
    plan: Plan
    codec: Codec


class HostSource:
    """The open files of one config.

    Attributes:
        schema: The config with the data set's numbers, and the codec resolved with its first record.
        plan: The static numbers of the data set and its order.
        data_set: The files.
        elements: Decoded elements by id.
        batches: Batches by state.
        metrics: What was read so far.
    """

    def __init__(self, config: "ArrayRecordSourceConfig") -> None:
        self.metrics = Metrics()
        scattered = config.shuffle_records and config.shuffle_block_size == 1
        self.data_set = DataSet(
            files.expand(config.paths),
            checksum=config.read.checksum,
            max_open_files=config.read.max_open_files,
            random_access=scattered,
            buffers=BufferPool(config.read.read_ahead_bytes),
        )
        self.plan = _plan(config, self.data_set)
        label = "" if config.name is None else f" ({config.name})"
        codec = self._resolve(config.codec, label)
        self.schema = Schema(config, self.plan, codec)
        self.elements = Elements(self.data_set, codec, self.metrics, label)
        if config.cacheable:
            self.elements.cache = open_cache(
                self.plan.num_records,
                self.elements.shapes,
                config.read.cache_bytes,
                config.read.cache_dir,
                lambda: f"{self.data_set.content_hash()} {self.data_set.stamps()} {describe(codec)}",
            )
        self.batches = Batches(self.plan, self.elements, self._open_windows(), self.metrics, label)
        self._waiting = f"arsrc: wait for a batch{label}"
        self._ahead = ReadAhead(
            self.batches.load,
            self.batches.following,
            self.elements.num_bytes,
            0 if is_forked() else config.read.read_ahead_bytes,
            config.cacheable or not self.data_set.is_grouped,
            config.read.num_threads,
            self.metrics,
        )

    def _resolve(self, codec: Codec, label: str) -> Codec:
        """Fill in what the codec takes from the data: the first record that is not excluded."""
        first = 0
        for start, stop in self.plan.exclude:
            first = stop if start <= first < stop else first
        try:
            return codec.resolve(self.data_set.read(np.array([first]))[0])
        except RecordError as error:
            raise with_place(error, first, self.data_set, label) from error

    def _open_windows(self) -> Windows | None:
        """Windows pay where a record cannot be read without its neighbours; two must fit, this and the next."""
        if self.plan.blocks is None or not self.data_set.is_grouped:
            return None
        window_bytes = self.plan.blocks.window_size * self.elements.num_bytes
        max_windows = min(4, self.schema.config.read.read_ahead_bytes // max(window_bytes, 1))
        return Windows(max_windows) if max_windows >= 2 else None

    def get(self, request: Request, outs: Leaves | None = None) -> Loaded:
        """Return what a request brings, read ahead where possible.

        Args:
            request: The request.
            outs: Arrays like the leaves that it brings, which may be used for them.
        """
        self.metrics.add(batches_served=request.num_batches * len(request.states))
        with profile.annotate(self._waiting):
            return self._ahead.get(request, outs)

    def put(self, leaves: Leaves, outs: Leaves) -> Leaves:
        """Copy leaves into `outs` where they are not there already and have the same dtype; return where they are."""
        return [self._put(leaf, out) for leaf, out in zip(leaves, outs, strict=True)]

    def _put(self, leaf: NDArray[np.generic], out: NDArray[np.generic]) -> NDArray[np.generic]:
        if leaf.dtype != out.dtype:
            return leaf
        if leaf.__array_interface__ != out.__array_interface__:  # another place in memory
            self.data_set.copier.copy(leaf, out)
        return out

    def is_ready(self, request: Request) -> bool:
        """Whether `get(request)` would hardly have to wait."""
        return self._ahead.is_ready(request)

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, some thousands at a time, excluded ones as padding."""
        for ids in self.elements.spans(label):
            yield record_order.served(np, self.plan, ids, np.ones(len(ids), bool))[0]

    def all_elements(self, label: str) -> Leaves:
        """Return one array `[num_records, ...]` per leaf; zero in the rows of excluded records."""
        arrays: Leaves = [np.empty((self.plan.num_records, *s), dtype) for s, dtype in self.elements.shapes]
        start = 0
        for ids in self.spans(label):
            for array, leaf in zip(arrays, self.elements.read(ids), strict=True):
                array[start : start + len(ids)] = leaf
            start += len(ids)
        return arrays

    def reset_cache(self) -> None:
        """Forget cached elements."""
        if self.elements.cache is not None:
            self.elements.cache.clear()

    def close(self) -> None:
        """Close files and threads, and write out a cache in files."""
        self._ahead.close()
        if self.elements.cache is not None:
            self.elements.cache.close()
        self.data_set.close()


def _plan(config: "ArrayRecordSourceConfig", data_set: DataSet) -> Plan:
    num_records = data_set.num_records
    by_block = config.shuffle_records and config.shuffle_block_size > 1
    by_file = config.shuffle_files and not config.shuffle_records
    window_size = config.shuffle_block_size * config.shuffle_window_blocks
    plan = Plan(
        num_records=num_records,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        remainder=config.remainder,
        shuffle_records=config.shuffle_records,
        file_sizes=tuple(data_set.sizes.tolist()) if by_file else (),
        blocks=Blocks(num_records, config.shuffle_block_size, window_size) if by_block else None,
        exclude=config.exclude,
    )
    if config.exclude and config.exclude[-1][0] >= num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError(message("exclude", what, exclude=config.exclude[-1]))
    if sum(min(stop, num_records) - min(start, num_records) for start, stop in config.exclude) == num_records:
        raise ArsrcValueError(message("exclude", f"excludes all {num_records} records", exclude=config.exclude))
    if plan.steps_per_epoch == 0:
        raise ArsrcValueError(
            message(
                "batch_size",
                f"is larger than the data set ({num_records} records) and remainder is 'drop'",
                'Use a smaller batch_size, or remainder="pad" or "wrap".',
                batch_size=config.batch_size,
            )
        )
    return plan
