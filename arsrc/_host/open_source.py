"""One open source: what a config asks for, of files and decoded elements that others may share."""

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.decoded import Decoded, label_of
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import is_forked
from arsrc._host.open_files import OpenFiles
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.elements import Elements
from arsrc._host.records.faults import Faults
from arsrc._host.records.leaves import Leaves
from arsrc._host.records.packed_rows import PackedRows
from arsrc._host.records.record_rows import RecordRows, RowReader
from arsrc._host.records.selected import Part, records_of
from arsrc._host.serving.loading import Loader
from arsrc._host.serving.read_ahead import Client
from arsrc._host.serving.requests import Loaded, Request
from arsrc.errors import ArsrcReadError, ArsrcValueError, sides
from arsrc.order import record_order
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan

if TYPE_CHECKING:
    from arsrc.codecs import Codec
    from arsrc.codecs.packed import Packed
    from arsrc.config import ArrayRecordSourceConfig


_MOST_ADOPTED = 64


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a trace depends on: the config but for its key and statistics, and what its files turned out to hold.

    Attributes:
        config: The config.
        plan: The static numbers.
        codec: The codec, resolved; or what has the spec of rows that are packed.
        files: Tells files from others at the same paths.
    """

    config: "ArrayRecordSourceConfig"
    plan: Plan
    codec: "Codec | Packed"
    files: int

    def fits(self, other: "Schema") -> bool:
        """Whether programs of the other one can read these files."""
        return dataclasses.replace(self, files=other.files) == other


class Group(NamedTuple):
    """Sources of which the records are read together: they share files, and how these are decoded.

    Attributes:
        configs: One for each source; what is not its own is the first one's.
        files: The files of all.
        parts: Which of their records are rows of each source.
        decoded: How records are decoded, and what is kept of it.
        shared: Keeps alive what others may find and share, as long as this group lives.
    """

    configs: "tuple[ArrayRecordSourceConfig, ...]"
    files: OpenFiles
    parts: tuple[Part, ...]
    decoded: Decoded
    shared: tuple[object, ...]


class OpenSource:
    """What one config asks for.

    Attributes:
        schema: The config with the data set's numbers, and the codec resolved with its first record.
        plan: The static numbers of the data set and its order.
        records: The records that rows are made of.
        elements: Decoded elements by id.
        group: What it shares with others.
        files: The files, and what is kept ahead of reading them.
        decoder: Decodes them, in the way that the config wishes.
        ahead: When threads read ahead for it: "auto", "always" or "never".
        asked_at: When it was last asked for, in seconds.
        masks: Whether bad records are masked rows: leaves are one more then, which rows hold a record.
        adopted: What programs that were compiled for older files, and began anew with these, ask for next.
    """

    def __init__(self, config: "ArrayRecordSourceConfig", group: Group) -> None:
        self.group, self.files, decoded = group, group.files, group.decoded
        self.adopted: collections.deque[Request] = collections.deque(maxlen=_MOST_ADOPTED)
        self._metrics = Metrics()
        self.asked_at = time.monotonic()
        self._is_closed = False
        data_set, label = group.files.data_set, label_of(config.name)
        self.records = records_of(data_set, group.parts)
        _check_excluded(config.exclude, self.records.num_records)
        self.plan = _plan(config, _rows_of_files(data_set, group))
        self.schema = Schema(config, self.plan, config._row_codec(decoded.decoder.codec), hash(data_set.stamps()))
        self.masks = config._masks
        self.decoder = decoded.decoder.like(config.codec)
        faults = Faults(label, self.masks, decoded.lost)
        reader = self._reader(config, decoded, faults, label)
        self.elements = Elements(reader, decoded.cache, self._metrics, faults, label)
        self._waiting = f"arsrc: wait for a batch{label}"
        self._loader = Loader(self.plan, self.elements, self.masks)
        self.ahead = "never" if is_forked() or config.read.read_ahead_bytes == 0 else config.read.ahead
        self._client = Client(
            self._loader,
            self.elements.num_bytes,
            config.cacheable or data_set.is_quick,
            self.ahead,
            config.read.num_threads,
            data_set.is_grouped,
            self._metrics,
        )

    def _reader(self, config: "ArrayRecordSourceConfig", decoded: Decoded, faults: Faults, label: str) -> RowReader:
        """Return what reads its rows."""
        if decoded.table is None or decoded.tokens is None:
            return RecordRows(self.records, self.decoder, self._metrics, label)
        return PackedRows(
            self.records,
            self.decoder,
            decoded.tokens,
            decoded.table,
            config.exclude,
            self.masks,
            faults,
            self._metrics,
            self.files.data_set.buffers,
            label,
        )

    @property
    def can_read(self) -> bool:
        """Whether its files were not closed: those of a retired source can still be read."""
        return not self.files.data_set.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or retired."""
        return self._is_closed or self.files.is_closed

    def get(self, request: Request, outs: Leaves | None = None) -> Loaded:
        """Return what a request brings, read ahead where possible.

        Args:
            request: The request.
            outs: Arrays like the leaves that it brings, which may be used for them.
        """
        if self.files.data_set.files.is_opening_here:
            what = "a signal handler asked for a batch in the midst of opening files"
            raise ArsrcReadError("read", what, "Let the handler set a flag, and ask when the step is over.")
        try:
            with profile.annotate(self._waiting):
                return self.files.ahead.get(self._client, request, outs)
        except MemoryError as error:
            raise self._out_of_memory(request.num_elements) from error

    def take(self, record_ids: NDArray[np.uint32]) -> Leaves:
        """Return one array `[*record_ids.shape, ...]` per leaf, of records u32[num_members, num_records]."""
        read = self.elements.read if len(record_ids) == 1 else self.elements.read_once
        asked_at = time.perf_counter()
        try:
            with profile.annotate(self._waiting):
                return read(record_ids, masks=self.masks)
        except MemoryError as error:
            raise self._out_of_memory(record_ids.size) from error
        finally:
            self._metrics.serve(len(record_ids), asked_at, is_here=True)

    def _out_of_memory(self, num_elements: int) -> ArsrcReadError:
        what = f"memory ran out while {num_elements} records were read"
        fix = "Use smaller batches, or less memory for others: caches, read_ahead_bytes."
        return ArsrcReadError("read", what, fix, num_bytes=num_elements * self.elements.num_bytes)

    def is_ready(self, request: Request) -> bool:
        """Whether `get(request)` would hardly have to wait."""
        return self.files.ahead.is_ready(self._client, request)

    def follows(self, request: Request) -> bool:
        """Whether a loop that runs on this source would ask for `request` next."""
        return self.files.ahead.follows(self._client, request)

    def is_exhausted(self, request: Request) -> bool:
        """Whether the last epoch lies behind all members of a request."""
        return self._loader.is_exhausted(request)

    def put(self, leaves: Leaves, outs: Leaves) -> Leaves:
        """Copy leaves into `outs` where they are not there already and have the same dtype; return where they are."""
        return [self._put(leaf, out) for leaf, out in zip(leaves, outs, strict=True)]

    def _put(self, leaf: NDArray[np.generic], out: NDArray[np.generic]) -> NDArray[np.generic]:
        if leaf.dtype != out.dtype:
            return leaf
        if _place(leaf) != _place(out):
            self.files.data_set.copier.copy(leaf, out)
        return out

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of all records in order, some thousands at a time, excluded ones as padding."""
        for ids in self.elements.spans(label):
            yield record_order.served(np, self.plan, ids, np.ones(len(ids), bool))[0]

    def all_elements(self, label: str) -> Leaves:
        """Return one array `[num_records, ...]` per leaf; zero in the rows of excluded records, and of masked ones."""
        shapes = [*self.elements.shapes, *([((), np.dtype(bool))] if self.masks else [])]
        arrays: Leaves = [np.empty((self.plan.num_records, *shape), dtype) for shape, dtype in shapes]
        start = 0
        for ids in self.spans(label):
            for array, leaf in zip(arrays, self.elements.read(ids, masks=self.masks), strict=True):
                array[start : start + len(ids)] = leaf
            start += len(ids)
        return arrays

    def content_hash(self) -> str:
        """Return a hash of what the files hold, from kilobytes of them."""
        return self.files.data_set.content_hash(self.files.slices_of(self.group.configs[0].paths))

    @property
    def table_digest(self) -> str:
        """Tells which documents stand in which row, where they are packed."""
        return self.group.decoded.table_digest

    @property
    def num_stored(self) -> int:
        """Records of its files, whether they are rows or not."""
        slices = self.files.slices_of(self.group.configs[0].paths)
        return int(self.files.data_set.sizes[slices.start : slices.stop].sum())

    def metrics(self) -> dict[str, float]:
        """Return what was counted so far, and what is kept for all that share the files."""
        return self._metrics.snapshot() | self.files.ahead.kept()

    def reset_cache(self) -> None:
        """Forget cached elements."""
        if self.elements.cache is not None:
            self.elements.cache.clear()

    def close(self) -> None:
        """Let go of what is read ahead for it, and tell loads that are under way to end."""
        self._is_closed = True
        self.files.ahead.forget(self._client)


def _place(array: NDArray[np.generic]) -> tuple[object, ...]:
    """Return where an array lies in memory."""
    found = array.__array_interface__
    return found["data"][0], found["shape"], found["strides"]


def random_access(config: "ArrayRecordSourceConfig") -> bool:
    """Whether records are read in random order, without locality."""
    return config.shuffle_records and config.shuffle_block_size == 1


def part_of(config: "ArrayRecordSourceConfig", files: OpenFiles) -> Part:
    """Return which records are rows of a source.

    Raises:
        ArsrcValueError: It selects records that there are none of, or selects from other data.
    """
    slices = files.slices_of(config.paths)
    selection = config.select
    if selection is None:
        return Part(slices.start, slices.stop, None)
    num_records = int(files.data_set.sizes[slices.start : slices.stop].sum())
    fix = "Select anew, by select_records for one, or give the paths for which it was made."
    if selection.num_records not in (None, num_records):
        what = f"was made for {selection.num_records} records, and the data set has {num_records}"
        raise ArsrcValueError("select", what, fix, select=selection)
    if selection.ids.stop > num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError("select", what, record_id=selection.ids.stop - 1)
    if selection.data is not None and selection.data != (found := files.data_set.content_hash(slices)):
        raise ArsrcValueError("select", "was made for other data", fix + sides(select=selection.data, paths=found))
    return Part(slices.start, slices.stop, selection.ids)


def _check_excluded(exclude: tuple[tuple[int, int], ...], num_records: int) -> None:
    if exclude and exclude[-1][0] >= num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError("exclude", what, exclude=exclude[-1])
    if sum(min(stop, num_records) - min(start, num_records) for start, stop in exclude) == num_records:
        raise ArsrcValueError("exclude", f"excludes all {num_records} records", exclude=exclude)


def _rows_of_files(data_set: DataSet, group: Group) -> NDArray[np.int64]:
    """Return the rows of each file, i64[num_files]; a packed row is of the file in which its first document lies."""
    sizes = np.concatenate([part.sizes(data_set) for part in group.parts])
    if (table := group.decoded.table) is None:
        return sizes
    if not group.configs[0].shuffle_files:
        return np.array([table.num_rows])
    ends = np.cumsum(sizes)
    files = np.searchsorted(ends, table.first_documents(np.arange(table.num_rows)), side="right")
    return np.bincount(files, minlength=len(sizes))


def _plan(config: "ArrayRecordSourceConfig", file_sizes: NDArray[np.int64]) -> Plan:
    num_records = int(file_sizes.sum())
    by_block = config.shuffle_records and config.shuffle_block_size > 1
    window_size = config.shuffle_block_size * config.shuffle_window_blocks
    plan = Plan(
        num_records=num_records,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        remainder=config.remainder,
        shuffle_records=config.shuffle_records,
        file_sizes=tuple(file_sizes.tolist()) if config.shuffle_files else (),
        blocks=Blocks(num_records, config.shuffle_block_size, window_size) if by_block else None,
        exclude=() if config.pack is not None else config.exclude,
    )
    if plan.steps_per_epoch == 0:
        raise ArsrcValueError(
            "batch_size",
            f"is larger than the data set ({num_records} records) and remainder is 'drop'",
            'Use a smaller batch_size, or remainder="pad" or "wrap".',
            batch_size=config.batch_size,
        )
    return plan
