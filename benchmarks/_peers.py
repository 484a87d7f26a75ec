"""Contestants: Grain, PyTorch, cyreal and datarax, each as its documentation says, feeding a jitted step."""

import contextlib
import functools
import importlib
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from _arsrc import BATCH, CHECKED
from _data import DataSet
from _forms import decode, is_lossy
from _harness import Contestant, Pieces, Session
from _records import Readers, as_tensor, join
from _train_step import consume, start, step

FED = "reading, joining to arrays, transfers, one dispatch of the step a batch"
_WORKERS = 2
WORKER_BUFFER = 4
_CYREAL_STEPS = 2


def fed(
    batches: Iterator[Any], lump: int, step: Callable[[Any, Any], Any] = step, count: Callable[[Any], int] = len
) -> Pieces:
    """Feed batches to a jitted step, `lump` of them at a time: what comes in bursts is timed by the burst."""
    carry = start()
    while True:
        num_records = 0
        for batch in itertools.islice(batches, lump):
            carry = step(carry, batch)
            num_records += count(batch)
        yield num_records, carry.block_until_ready


def stop(iterator: Any) -> None:
    """End an iterator's threads and processes. Grain's DataLoader hides the one that can be closed."""
    with contextlib.suppress(AttributeError):
        getattr(iterator, "_iterator", iterator).close()


def import_grain() -> Any:
    grain = importlib.import_module("grain")
    flags = importlib.import_module("absl.flags").FLAGS
    if not flags.is_parsed():
        flags.mark_as_parsed()  # its worker processes want the flags of a program that has parsed them
    return grain


def iterators(
    name: str,
    family: str,
    make: Callable[[int], Iterator[Any]],
    lump: int,
    counts: str = FED,
    keep: bool = False,
    checked: bool = True,
) -> Contestant:
    """A contestant from `make(turn)`, which gives an iterator of batches.

    Args:
        name: As in the tables.
        family: The loader.
        make: Makes the iterator.
        lump: Batches that may arrive at once.
        counts: What its time includes.
        keep: Whether one iterator serves all turns: where it has worker processes, which start slowly, and
            which hold little in their buffers while they are not asked.
        checked: Whether batches hold the bytes that the files are made of.
    """

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        kept = make(0) if keep else None

        def pieces(turn: int) -> Pieces:
            iterator = kept if kept is not None else make(turn)
            try:
                yield from fed(iterator, lump)
            finally:
                if kept is None:
                    stop(iterator)

        def batches() -> Any:
            iterator = kept if kept is not None else make(0)
            yield from itertools.islice(iterator, CHECKED)
            if kept is None:
                stop(iterator)

        try:
            yield Session(pieces, batches if checked else None)
        finally:
            stop(kept)

    return Contestant(name, family, counts, opened)


def grain_map(
    data: DataSet, num_threads: int, num_workers: int = 0, function: Callable[[bytes], Any] | None = None
) -> Contestant:
    """Grain's `MapDataset`, shuffled, in batches, read by threads, or by processes of as many threads.

    With a function, each record is what that makes of it.

    Without one, records of a form are decoded one by one by the form's decoder, and stacked by Grain.
    """

    def make(turn: int) -> Iterator[Any]:
        grain = import_grain()
        dataset = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(data.paths)).seed(turn).shuffle()
        if data.form and function is None:
            elements = dataset.map(functools.partial(decode, data.form))
            batches = elements.repeat().batch(BATCH, drop_remainder=True).map(operator.itemgetter("image"))
        else:
            mapped = dataset if function is None else dataset.map(function)
            joined = join if function is None else np.stack
            batches = mapped.repeat().batch(BATCH, drop_remainder=True, batch_fn=joined)
        buffer = WORKER_BUFFER if num_workers else 500 * (num_threads > 0)
        dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=buffer))
        if num_workers:
            dataset = dataset.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers))
        iterator: Iterator[Any] = iter(dataset)
        return iterator

    how = f"{num_workers} processes" if num_workers else f"{num_threads} threads"
    if num_workers and not num_threads:
        how += " without threads"
    lump = num_workers * (WORKER_BUFFER + 2) if num_workers else max(2, num_threads)
    checked = not is_lossy(data.form)
    return iterators(f"Grain MapDataset, {how}", "Grain", make, lump, keep=num_workers > 0, checked=checked)


def grain_loader(data: DataSet, num_workers: int = 0) -> Contestant:
    """Grain's `DataLoader` with its default threads, in this process or in others."""

    def make(turn: int) -> Iterator[Any]:
        grain = import_grain()
        source = grain.sources.ArrayRecordDataSource(data.paths)
        options = {"shuffle": True, "seed": turn, "shard_options": grain.sharding.NoSharding()}
        loader = grain.DataLoader(
            data_source=source,
            sampler=grain.samplers.IndexSampler(len(source), num_epochs=None, **options),
            operations=[grain.transforms.Batch(BATCH, drop_remainder=True, batch_fn=join)],
            worker_count=num_workers,
        )
        iterator: Iterator[Any] = iter(loader)
        return iterator

    how = f"{num_workers} processes" if num_workers else "in process"
    # It reads 500 records ahead, in each process, and each process holds one batch ready.
    return iterators(f"Grain DataLoader, {how}", "Grain", make, 4 * max(1, num_workers), keep=num_workers > 0)


def torch_loader(data: DataSet) -> Contestant:
    """PyTorch's `DataLoader` with worker processes, over a data set with batched access."""

    def make(turn: int) -> Iterator[Any]:
        utils = importlib.import_module("torch.utils.data")
        readers = Readers(data)
        generator = importlib.import_module("torch").Generator()
        generator.manual_seed(turn)
        endless = utils.RandomSampler(readers, num_samples=2**40, generator=generator)  # epoch after epoch
        loader = utils.DataLoader(
            readers,
            batch_sampler=utils.BatchSampler(endless, BATCH, drop_last=True),
            collate_fn=as_tensor,
            num_workers=_WORKERS,
            multiprocessing_context="spawn",  # JAX has threads, which a fork would lose
            persistent_workers=True,
        )
        return (batch.numpy() for batch in loader)

    return iterators(f"PyTorch DataLoader, {_WORKERS} processes", "PyTorch", make, 2 * 2 * _WORKERS, keep=True)


def cyreal_disk(data: DataSet, prefetch_size: int) -> Contestant:
    """cyreal's `DiskSource`, in batches, inside a scan."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        cyreal = importlib.import_module("cyreal.sources"), importlib.import_module("cyreal.transforms")
        loaders = importlib.import_module("cyreal.loader")
        readers = Readers(data)
        source = cyreal[0].DiskSource(
            length=data.num_records,
            sample_fn=lambda record_id: np.frombuffer(readers[record_id], np.uint8),
            prefetch_size=prefetch_size,
        )
        loader = loaders.DataLoader([source, cyreal[1].BatchTransform(BATCH, drop_last=True)])

        def run(body: Any, state: Any, carry: Any) -> Any:
            def scanned(both: Any, _: None) -> Any:
                batch, state, _ = loader.next(both[0])
                carry, output = body(both[1], batch)
                return (state, carry), output

            return jax.lax.scan(scanned, (state, carry), length=_CYREAL_STEPS)

        program = jax.jit(lambda state, carry: run(consume, state, carry)[0])
        deliver = jax.jit(lambda state: run(lambda carry, batch: (carry, batch), state, None)[1])

        def pieces(turn: int) -> Pieces:
            state, carry = loader.init_state(jax.random.key(turn)), start()
            while True:
                state, carry = program(state, carry)
                yield _CYREAL_STEPS * BATCH, carry.block_until_ready
                carry.block_until_ready()

        try:
            yield Session(pieces, lambda: deliver(loader.init_state(jax.random.key(0))))
        finally:
            readers.close()

    counts = "reading one record a call, the scan, the step"
    return Contestant(f"cyreal DiskSource, prefetch {prefetch_size}", "cyreal", counts, opened)


def datarax_source(data: DataSet) -> Contestant:
    """datarax's `ArrayRecordSourceModule`, shuffled, a batch at a time: faster than through its `Pipeline`."""

    def make(turn: int) -> Iterator[Any]:
        module = importlib.import_module("datarax.sources.array_record_source")
        make_source = functools.partial(
            module.ArrayRecordSourceModule,
            module.ArrayRecordSourceConfig(seed=turn, shuffle_files=True),  # which permutes the records
            data.paths,
        )

        def batches() -> Iterator[Any]:
            if not hasattr(module.ArrayRecordSourceModule, "get_batch"):  # before 0.1.9
                with make_source() as source:
                    for first in range(0, 2**40, BATCH):
                        yield join(source.get_batch_at(first, BATCH))
            with make_source(decode=lambda record: {"record": np.frombuffer(record, np.uint8)}) as source:
                while True:
                    yield from source.get_batch(BATCH).values()  # none where an epoch ends

        return batches()

    return iterators("datarax ArrayRecordSourceModule", "datarax", make, 1)
