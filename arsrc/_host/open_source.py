"""One open source: what a config asks for, of files and decoded elements that others may share."""

import collections
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc._host.decoded import label_of
from arsrc._host.groups import Group, own_excluded
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import is_forked
from arsrc._host.records.elements import Elements
from arsrc._host.records.faults import Faults, Met
from arsrc._host.records.leaves import Decoder, Leaves
from arsrc._host.records.mixed_elements import MixedElements
from arsrc._host.records.packed_rows import PackedRows
from arsrc._host.records.record_rows import RecordRows, RowReader
from arsrc._host.serving.loading import Loader
from arsrc._host.serving.read_ahead import Client
from arsrc._host.serving.requests import Loaded, Request
from arsrc.errors import ArsrcReadError
from arsrc.order import record_order
from arsrc.order.plan import Plan

if TYPE_CHECKING:
    from arsrc.any_config import AnyConfig
    from arsrc.codecs import Codec
    from arsrc.codecs.packed import Mixed, Packed


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

    config: "AnyConfig"
    plan: Plan
    codec: "Codec | Packed | Mixed"
    files: int

    def fits(self, other: "Schema") -> bool:
        """Whether programs of the other one can read these files."""
        return dataclasses.replace(self, files=other.files) == other


class OpenSource:
    """What one config asks for.

    Attributes:
        schema: The config with the data set's numbers, and the codec resolved with its first record.
        plan: The static numbers of the data set and its order.
        elements: Decoded elements by id.
        groups: Its sources, by how they are read.
        files: The files, and what is kept ahead of reading them; of the first group.
        ahead: When threads read ahead for it: "auto", "always" or "never".
        asked_at: When it was last asked for, in seconds.
        masks: Whether bad records are masked rows: leaves are one more then, which rows hold a record.
        adopted: What programs that were compiled for older files, and began anew with these, ask for next.
    """

    def __init__(self, config: "AnyConfig", groups: Sequence[Group]) -> None:
        self.groups, self.files = groups, groups[0].files
        self.adopted: collections.deque[Request] = collections.deque(maxlen=_MOST_ADOPTED)
        self._metrics = Metrics()
        self.asked_at = time.monotonic()
        self._is_closed = False
        label = label_of(config.name)
        places = [(group, place) for group, sources in enumerate(config._groups) for place, _ in enumerate(sources)]
        numbers = [source for sources in config._groups for source in sources]
        self._places = dict(sorted(zip(numbers, places, strict=True)))  # by the number of the source
        plans = [groups[group].plans[place] for group, place in self._places.values()]
        self.plan = config._plan(plans)
        codec = config._row_codec([group.decoded.decoder.codec for group in groups])
        self.schema = Schema(config, self.plan, codec, hash(tuple(group.files.data_set.stamps() for group in groups)))
        self.masks = config._masks
        self._decoders = [group.decoded.decoder.like(group.configs[0].codec) for group in groups]
        pairs = zip(groups, self._decoders, strict=True)
        elements = [self._elements_of(group, decoder, label) for group, decoder in pairs]
        group_of = [group for group, _ in self._places.values()]
        sizes = [plan.num_records for plan in plans]
        self._faults = [one.faults for one in elements]
        self.elements = elements[0] if len(groups) == 1 else MixedElements(elements, group_of, sizes)
        self._waiting = f"arsrc: wait for a batch{label}"
        self._loader = Loader(self.plan, self.elements, self.masks)
        self.ahead = "never" if is_forked() or config.read.read_ahead_bytes == 0 else config.read.ahead
        self._client = Client(
            self._loader,
            self.elements.num_bytes,
            all(group.configs[0].cacheable or group.files.data_set.is_quick for group in groups),
            self.ahead,
            config.read.num_threads,
            any(group.files.data_set.is_grouped for group in groups),
            self._metrics,
        )

    def _elements_of(self, group: Group, decoder: Decoder, label: str) -> Elements:
        """Return what reads the rows of a group."""
        decoded, metrics = group.decoded, self._metrics
        faults = Faults(label, self.masks, decoded.lost)
        reader: RowReader = RecordRows(group.records, decoder, metrics, label)
        if decoded.table is not None and decoded.tokens is not None:
            reader = PackedRows(
                group.records,
                decoder,
                decoded.tokens,
                decoded.table,
                group.exclude,
                self.masks,
                faults,
                metrics,
                group.files.data_set.buffers,
                label,
            )
        return Elements(reader, decoded.cache, metrics, faults, label)

    @property
    def sources(self) -> list[tuple[Group, int]]:
        """The group of each source, and its place in it."""
        return [(self.groups[group], place) for group, place in self._places.values()]

    @property
    def exclude(self) -> list[tuple[int, int]]:
        """Ranges of excluded records, those of a mixture's sources numbered one source behind the other."""
        found, first = [], 0
        for group, place in self.sources:
            size = group.num_documents(place)
            found += [(first + start, first + stop) for start, stop in own_excluded(group.configs[place], size)]
            first += size
        return found

    def bad_records(self) -> list[tuple[int, int, Met]]:
        """Return the bad records that were met, by source: `(source, its record, what is known of it)`."""
        by_place = {place: source for source, place in self._places.items()}
        found = []
        for number, (group, faults) in enumerate(zip(self.groups, self._faults, strict=True)):
            for record_id, met in faults.met().items():
                place, own_id = group.own_record(record_id)
                found.append((by_place[number, place], own_id, met))
        return sorted(found, key=lambda one: one[:2])

    def where(self, source: int, record_id: int) -> tuple[str, int]:
        """Return the file of a source's record, or document, and its position in it."""
        group, place = self.sources[source]
        return group.where(place, record_id)

    @property
    def can_read(self) -> bool:
        """Whether its files were not closed: those of a retired source can still be read."""
        return not any(group.files.data_set.is_closed for group in self.groups)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or retired."""
        return self._is_closed or any(group.files.is_closed for group in self.groups)

    def is_current(self, strict: bool) -> bool:
        """Whether the paths still lead to the files that were opened; see `OpenFiles.is_current`."""
        looked = [group.files.is_current(strict) for group in self.groups]  # at all of them
        return all(looked)

    def use(self, config: "AnyConfig") -> None:
        """Decode in the way of an equal config whose codecs differ in what changes no result."""
        for sources, decoder in zip(config._groups, self._decoders, strict=True):
            decoder.use(config._sources[sources[0]].codec)

    def get(self, request: Request, outs: Leaves | None = None) -> Loaded:
        """Return what a request brings, read ahead where possible.

        Args:
            request: The request.
            outs: Arrays like the leaves that it brings, which may be used for them.
        """
        if any(group.files.data_set.files.is_opening_here for group in self.groups):
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
        fix = "Use smaller batches, or fewer at a time, or less memory for others: caches, read_ahead_bytes."
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

    def num_left(self, request: Request) -> int:
        """Return how many batches of a request lie before the end."""
        return self._loader.num_left(request)

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

    @property
    def batches_at_once(self) -> int:
        """How many batches the program asks for together."""
        return self._metrics.batches_at_once

    def metrics(self) -> dict[str, float]:
        """Return what was counted so far, and what is kept for all that share the files."""
        return self._metrics.snapshot() | self.files.ahead.kept()

    def reset_cache(self) -> None:
        """Forget cached elements."""
        for group in self.groups:
            if group.decoded.cache is not None:
                group.decoded.cache.clear()

    def close(self) -> None:
        """Let go of what is read ahead for it, and tell loads that are under way to end."""
        self._is_closed = True
        self.files.ahead.forget(self._client)


def _place(array: NDArray[np.generic]) -> tuple[object, ...]:
    """Return where an array lies in memory."""
    found = array.__array_interface__
    return found["data"][0], found["shape"], found["strides"]
