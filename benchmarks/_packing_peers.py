"""Contestants: Grain's packing and mixing, each as its documentation says, feeding a jitted step."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from _arsrc import BATCH as RECORDS
from _data import DataSet
from _harness import Contestant, Pieces, Session
from _packing_data import ROW, Documents
from _packing_step import BATCH, step_rows
from _peers import FED, WORKER_BUFFER, fed, import_grain, iterators, stop
from _records import join

_CHECKED = 16
_AT_ONCE = 256

Make = Callable[[int], Iterator[Any]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How Grain reads.

    Its threads only take the interpreter's lock from each other here, in workers too: none are the fastest.

    Attributes:
        name: As in the tables.
        num_workers: Worker processes; they pack, too.
        by_hand: Whether documents are read by hundreds, by a function of one's own.
    """

    name: str
    num_workers: int = 0
    by_hand: bool = False

    @property
    def lump(self) -> int:
        """Batches that may be ready after a pause: of two workers 22 were, measured."""
        return self.num_workers * (WORKER_BUFFER + 8) or 1

    def iterate(self, grain: Any, dataset: Any) -> Iterator[Any]:
        """Return the batches of a dataset."""
        if self.num_workers:
            options = grain.multiprocessing.MultiprocessingOptions(self.num_workers, WORKER_BUFFER)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)


HERE, WORKERS = Way("in process"), Way("2 processes", 2)
BY_HAND = Way(f"{_AT_ONCE} documents a read by hand, 2 processes", 2, by_hand=True)


def packed(data: Documents, how: str, way: Way, parts: Sequence[Sequence[str]] = (), weights: Any = None) -> Contestant:
    """`ConcatThenSplitIterDataset` ("split") or `FirstFitPackIterDataset` ("fit"), or a mixture of such."""

    def make(turn: int) -> Iterator[Any]:
        grain = import_grain()
        sources = [
            _pack(grain, _documents(grain, paths, turn + number, way), how)
            for number, paths in enumerate(parts or [data.paths])
        ]
        mixed = grain.IterDataset.mix(sources, weights) if parts else sources[0]
        return way.iterate(grain, mixed.batch(BATCH, drop_remainder=True))

    kind = {"split": "ConcatThenSplit", "fit": "FirstFitPack"}[how]
    what = f"IterDataset.mix of {len(parts)} {kind}IterDatasets" if parts else f"{kind}IterDataset"
    return _of_rows(f"Grain {what}, {way.name}", data, make, way, whole=how == "fit", is_mixture=bool(parts))


def _documents(grain: Any, paths: Sequence[str], seed: int, way: Way) -> Any:
    import _packing_records

    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    source = grain.sources.ArrayRecordDataSource(paths)
    if not way.by_hand:
        dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().map(_packing_records.as_tokens)
        return dataset.to_iter_dataset(options)
    numbers = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().batch(_AT_ONCE)
    read = numbers.map(_packing_records.ReadMany(paths)).to_iter_dataset(options)
    return grain.experimental.FlatMapIterDataset(read, _packing_records.OneByOne(_AT_ONCE))


def _pack(grain: Any, documents: Any, how: str) -> Any:
    length = {"tokens": ROW}
    if how == "split":
        return grain.experimental.ConcatThenSplitIterDataset(documents, length_struct=length)
    return grain.experimental.FirstFitPackIterDataset(documents, length_struct=length, num_packing_bins=BATCH)


def _of_rows(name: str, data: Documents, make: Make, way: Way, *, whole: bool, is_mixture: bool) -> Contestant:
    """A contestant that delivers packed rows; its rate counts tokens, not padding."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        first = make(0)
        # Workers start slowly, and hold little in their buffers; sources of mixtures have packed many rows ahead, which
        # would be a head start in each turn.
        kept = first if way.num_workers or is_mixture else None
        try:
            found = [_named(batch) for batch in itertools.islice(first, _CHECKED)]
            fill = data.check(found, whole=whole, once=not is_mixture)

            def pieces(turn: int) -> Pieces:
                iterator = kept if kept is not None else make(turn)
                try:
                    for num_places, wait in fed(iterator, way.lump, step_rows, lambda batch: batch["tokens"].size):
                        yield int(num_places * fill), wait
                finally:
                    if kept is None:
                        stop(iterator)

            yield Session(pieces, None)
        finally:
            stop(first)

    return Contestant(name, "Grain", FED.replace("joining to arrays", "packing"), opened)


def _named(batch: Any) -> Any:
    """Return a batch with our names."""
    return {name.removeprefix("tokens_"): array for name, array in batch.items()}


def mixed(data: DataSet, parts: Sequence[Sequence[str]], weights: Sequence[float], way: Way) -> Contestant:
    """`MapDataset.mix` of plain records."""

    def make(turn: int) -> Iterator[Any]:
        grain = import_grain()
        sources = [
            grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths)).seed(turn + number).shuffle().repeat()
            for number, paths in enumerate(parts)
        ]
        batches = grain.MapDataset.mix(sources, weights).batch(RECORDS, drop_remainder=True, batch_fn=join)
        dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        return way.iterate(grain, dataset)

    name = f"Grain MapDataset.mix of {len(parts)}, {way.name}"
    return iterators(name, "Grain", make, way.lump, keep=way.num_workers > 0)
