"""One open source: what a config asks for, of files and decoded elements that others may share."""

import collections
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine import profile, slow_reads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import is_forked
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.cache import ElementCache, open_cache
from arsrc._host.records.codec_identity import describe
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.decoding import with_place
from arsrc._host.records.elements import Elements
from arsrc._host.records.faults import Faults
from arsrc._host.records.leaves import Decoder, Leaves
from arsrc._host.serving.loading import Loader
from arsrc._host.serving.read_ahead import Client, ReadAhead
from arsrc._host.serving.requests import Loaded, Request
from arsrc._host.storage import paths
from arsrc.errors import ArsrcError, ArsrcFileNotFoundError, ArsrcReadError, ArsrcValueError, RecordError
from arsrc.order import record_order
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan

if TYPE_CHECKING:
    from arsrc.codecs import Codec
    from arsrc.config import ArrayRecordSourceConfig


_MOST_ADOPTED = 64
_LOOK_SHARE = 10  # looking at the files of a source takes one part in so many of the time


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a trace depends on: the config but for its key and statistics, and what its files turned out to hold.

    Attributes:
        config: The config.
        plan: The static numbers.
        codec: The codec, resolved.
        files: Tells files from others at the same paths.
    """

    config: "ArrayRecordSourceConfig"
    plan: Plan
    codec: "Codec"
    files: int

    def fits(self, other: "Schema") -> bool:
        """Whether programs of the other one can read these files."""
        return dataclasses.replace(self, files=other.files) == other


class OpenFiles:
    """Files, and what is kept ahead of reading them, of one source or of several.

    Attributes:
        data_set: The records.
        ahead: Serves requests.
        is_closed: Whether they were closed, or retired: nobody else may begin to use them.
    """

    def __init__(self, config: "ArrayRecordSourceConfig") -> None:
        self._paths, self._limit = config.paths, config.read.timeout_seconds
        self._slices = self._found()
        self._looked_at, self._look_seconds = -math.inf, math.inf
        self.is_closed = False
        max_bytes = config.read.read_ahead_bytes
        buffers, groups = BufferPool(max_bytes), GroupCache(max_bytes // 2)
        self.data_set = DataSet(
            self._slices,
            checksum=config.read.checksum,
            max_open_files=config.read.max_open_files,
            random_access=random_access(config),
            buffers=buffers,
            groups=groups,
            limit=self._limit,
        )
        self.ahead = ReadAhead(buffers, groups, max_bytes)

    def _found(self) -> list[paths.FileSlice]:
        return slow_reads.read(lambda: f"looking for {self._paths}", lambda: paths.expand(self._paths), self._limit)

    def is_current(self, strict: bool) -> bool:
        """Whether the paths still lead to the files that were opened, unchanged.

        Args:
            strict: Look in any case, and fail where a file is gone or cannot be looked at; else look as often as takes
                a tenth of the time at most, and let go on what nobody can change any more.
        """
        start = time.monotonic()
        if not strict and start - self._looked_at < _LOOK_SHARE * self._look_seconds:
            return True
        self._looked_at = start  # and not when it ends: what is written meanwhile is looked at again
        try:
            is_current = self._found() == self._slices and self.data_set.is_current()
        except (ArsrcFileNotFoundError, ArsrcReadError):
            if strict:
                raise
            is_current = True
        # The least so far: others may have had to wait for a core.
        self._look_seconds = min(self._look_seconds, time.monotonic() - start)
        return is_current

    def look_again(self) -> None:
        """Let the next who asks whether these are current look at the files."""
        self._looked_at = -math.inf

    def retire(self) -> None:
        """Let go of what is kept; the files close when the last who still reads them is done."""
        self.ahead.close()

    def close(self) -> None:
        """Let go of what is kept, and close the files."""
        self.ahead.close()
        self.data_set.close()


class Decoded:
    """How the records of files are decoded, and what is kept of it, of one source or of several.

    Attributes:
        decoder: With the codec, in which everything is filled in that it takes from its first record.
        cache: Where decoded elements are kept, None if they are not.
    """

    def __init__(self, config: "ArrayRecordSourceConfig", data_set: DataSet) -> None:
        self.decoder = _decoder(config, data_set)
        self.cache: ElementCache | None = None
        if not config.cacheable:
            return
        try:
            self.cache = open_cache(
                data_set.num_records,
                self.decoder.shapes,
                config.read.cache_bytes,
                config.read.cache_dir,
                lambda: f"{data_set.content_hash()} {data_set.stamps()} {describe(self.decoder.codec)}",
            )
        except BaseException:
            self.decoder.rest()  # at once: the error's traceback keeps it
            raise


class OpenSource:
    """What one config asks for.

    Attributes:
        schema: The config with the data set's numbers, and the codec resolved with its first record.
        plan: The static numbers of the data set and its order.
        elements: Decoded elements by id.
        files: The files, and what is kept ahead of reading them.
        decoded: How records are decoded, and what is kept of it.
        decoder: Decodes them, in the way that the config wishes.
        ahead: When threads read ahead for it: "auto", "always" or "never".
        asked_at: When it was last asked for, in seconds.
        masks: Whether bad records are masked rows: leaves are one more then, which rows hold a record.
        shared: Keeps alive what others may find and share, as long as this source lives.
        adopted: What programs that were compiled for older files, and began anew with these, ask for next.
    """

    def __init__(self, config: "ArrayRecordSourceConfig", files: OpenFiles, decoded: Decoded, *shared: object) -> None:
        self.files, self.decoded, self.shared = files, decoded, shared
        self.adopted: collections.deque[Request] = collections.deque(maxlen=_MOST_ADOPTED)
        self._metrics = Metrics()
        self.asked_at = time.monotonic()
        self._is_closed = False
        self.plan = _plan(config, files.data_set)
        self.schema = Schema(config, self.plan, decoded.decoder.codec, hash(files.data_set.stamps()))
        label = label_of(config)
        self.masks = config._masks
        faults = Faults(label, self.masks)
        self.decoder = decoded.decoder.like(config.codec)
        self.elements = Elements(files.data_set, self.decoder, decoded.cache, self._metrics, faults, label)
        self._waiting = f"arsrc: wait for a batch{label}"
        self._loader = Loader(self.plan, self.elements, self.masks)
        self.ahead = "never" if is_forked() or config.read.read_ahead_bytes == 0 else config.read.ahead
        self._client = Client(
            self._loader,
            self.elements.num_bytes,
            config.cacheable or files.data_set.is_quick,
            self.ahead,
            config.read.num_threads,
            files.data_set.is_grouped,
            self._metrics,
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
        return self.files.data_set.content_hash()

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


def first_record(config: "ArrayRecordSourceConfig", first: int = 0) -> int:
    """Return the id of the first record from one on that is not excluded."""
    for start, stop in config.exclude:
        first = stop if start <= first < stop else first
    return first


def label_of(config: "ArrayRecordSourceConfig") -> str:
    """Return what names a source in errors and profiles."""
    return "" if config.name is None else f" ({config.name})"


def _decoder(config: "ArrayRecordSourceConfig", data_set: DataSet) -> Decoder:
    """Return the decoder that fits the first record; where bad ones are masked, one behind it may stand in for it.

    Those that are tried lie ever farther behind it, so that a damaged stretch of a file is left soon.
    """
    first = first_record(config)
    others = [first_record(config, first + 2**power - 1) for power in range(1, 33)] if config._masks else []
    errors: dict[int, ArsrcError] = {}
    for record_id in [min(first, data_set.num_records - 1), *(one for one in others if one < data_set.num_records)]:
        try:
            return config._decoder(data_set.read(np.array([record_id])).records[0])
        except RecordError as error:
            errors[record_id] = with_place(error, record_id, data_set, label_of(config))
        except ArsrcReadError as error:
            if error.position is None:  # the whole file
                raise
            errors[record_id] = error
    failed, *also_bad = errors
    raise errors[failed].naming(also_bad=also_bad) if also_bad else errors[failed]


def _plan(config: "ArrayRecordSourceConfig", data_set: DataSet) -> Plan:
    num_records = data_set.num_records
    by_block = config.shuffle_records and config.shuffle_block_size > 1
    window_size = config.shuffle_block_size * config.shuffle_window_blocks
    plan = Plan(
        num_records=num_records,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        remainder=config.remainder,
        shuffle_records=config.shuffle_records,
        file_sizes=tuple(data_set.sizes.tolist()) if config.shuffle_files else (),
        blocks=Blocks(num_records, config.shuffle_block_size, window_size) if by_block else None,
        exclude=config.exclude,
    )
    if config.exclude and config.exclude[-1][0] >= num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError("exclude", what, exclude=config.exclude[-1])
    if sum(min(stop, num_records) - min(start, num_records) for start, stop in config.exclude) == num_records:
        raise ArsrcValueError("exclude", f"excludes all {num_records} records", exclude=config.exclude)
    if plan.steps_per_epoch == 0:
        raise ArsrcValueError(
            "batch_size",
            f"is larger than the data set ({num_records} records) and remainder is 'drop'",
            'Use a smaller batch_size, or remainder="pad" or "wrap".',
            batch_size=config.batch_size,
        )
    return plan
