"""Contestants: arsrc, streaming inside a scan, resident, and its parts on the host."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from _data import DataSet
from _forms import is_lossy
from _harness import Contestant, Pieces, Session
from _train_step import Array, consume, start

import arsrc
from arsrc._host import registry

Body = Callable[[Array, Array], tuple[Array, None]]

BATCH = 256

CHECKED = 2
"""Batches that are compared with the files, at least."""

MOST_STEPS = 1024
"""Steps of one compiled scan: an epoch, or so many of a long one."""

NOTHING = 0, lambda: None
"""A first piece of work that leaves all to the next one: nobody shall have read ahead when the time begins."""


def config_for(data: DataSet, name: str, **options: Any) -> arsrc.ArrayRecordSourceConfig:
    """Return a config that shuffles all records; each name has open files and read-ahead of its own."""
    return arsrc.ArrayRecordSourceConfig(data.paths, BATCH, shuffle_records=True, name=name, **options)


def first_state(config: arsrc.ArrayRecordSourceConfig, turn: int) -> arsrc.SourceState:
    """Return where a turn starts: at the beginning of an epoch in an order of its own."""
    return arsrc.init(config, jax.random.key(turn))


def scan(
    data: DataSet,
    batches_per_fetch: int = 1,
    *,
    name: str = "arsrc",
    body: Body = consume,
    num_steps: int | None = None,
    shuffled: bool = True,
    resident: bool = False,
    image: Callable[[Any], Array] = lambda element: element,
    **options: Any,
) -> Contestant:
    """`scan_epoch` with so many batches per fetch; streaming, or gathering from a resident table.

    The step takes `image` of what a codec gives.
    """
    how = "resident" if resident else f"scan, {batches_per_fetch} per fetch"
    config = config_for(data, f"{name}, {how}", **options)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        steps = num_steps or min(arsrc.steps_per_epoch(config), MOST_STEPS)
        table = arsrc.load_resident(config) if resident else None
        if options.get("cacheable"):
            for first in range(0, data.num_records, 4096):  # the first epoch
                arsrc.take(config, np.arange(first, min(first + 4096, data.num_records)))

        def run(body: Any, num_steps: int, state: arsrc.SourceState, carry: Any, table: Any) -> Any:
            return arsrc.scan_steps(
                config, state, carry, body, num_steps, batches_per_fetch=batches_per_fetch, resident=table
            )

        @jax.jit
        def program(state: arsrc.SourceState, carry: Array, table: Any) -> Any:
            return run(lambda carry, batch: body(carry, image(batch.data)), steps, state, carry, table)[:2]

        def pieces(turn: int) -> Pieces:
            state, carry = first_state(config, turn), start()
            while True:
                state, carry = program(state, carry, table)
                yield steps * BATCH, carry.block_until_ready
                carry.block_until_ready()  # one program at a time

        def batches() -> Any:
            keep = lambda carry, batch: (carry, image(batch.data))  # noqa: E731
            found = run(keep, max(CHECKED, batches_per_fetch), first_state(config, 0), None, table)[2]
            return found[: data.num_records // BATCH]  # in which no record comes twice

        try:
            yield Session(pieces, None if is_lossy(data.form) else batches)
        finally:
            arsrc.close(config)

    counts = "reading, the scan, the step" + (" (reading everything before is not counted)" if resident else "")
    return Contestant(f"{name}, {how}", "arsrc", counts, opened, shuffled)


def scan_anew(
    data: DataSet,
    batches_per_fetch: int,
    steps: int,
    *,
    name: str,
    counts: str,
    head_start: bool = False,
    around_opening: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    **options: Any,
) -> Contestant:
    """So many steps a piece over files that each turn opens anew; timed from the first one on, or from the second."""
    name = f"{name}, {batches_per_fetch} per fetch"
    config = config_for(data, name, **options)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        body = lambda carry, batch: consume(carry, batch.data)  # noqa: E731

        @jax.jit
        def program(state: arsrc.SourceState, carry: Array) -> Any:
            return arsrc.scan_steps(config, state, carry, body, steps, batches_per_fetch=batches_per_fetch)[:2]

        jax.block_until_ready(program(first_state(config, 0), start()))  # compiles

        def pieces(turn: int) -> Pieces:
            arsrc.close(config)
            with around_opening():
                state, carry = first_state(config, turn + 1), start()  # opens
            try:
                if not head_start:
                    yield NOTHING
                while True:
                    state, carry = program(state, carry)
                    yield steps * BATCH, carry.block_until_ready
                    carry.block_until_ready()
            finally:
                arsrc.close(config)  # what is mapped cannot be dropped for the next one

        arsrc.close(config)
        yield Session(pieces, None)

    return Contestant(name, "arsrc", counts, opened)


def gather_on_host(data: DataSet) -> Contestant:
    """What a read-ahead thread does: ids to arrays of one batch, from the map, on one thread."""
    config = config_for(data, "arsrc, host gather")

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        elements = registry.source(config).elements

        def read(ids: Any) -> Any:
            return elements.read(ids.astype(np.uint32))[0]

        def pieces(turn: int) -> Pieces:
            order = np.random.default_rng(turn).permutation(data.num_records)
            while True:
                for first in range(0, data.num_records - BATCH + 1, BATCH):
                    read(order[first : first + BATCH])
                    yield BATCH, lambda: None

        try:
            yield Session(pieces, lambda: [read(np.random.default_rng(0).permutation(data.num_records)[:BATCH])])
        finally:
            arsrc.close(config)

    return Contestant("arsrc, host gather", "arsrc", "one thread, files to an array of the batch", opened)


def opening(data: DataSet) -> Contestant:
    """Opening the files of a config, which every first use does."""
    config = config_for(data, "arsrc, open")

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        def pieces(turn: int) -> Pieces:
            del turn
            while True:
                arsrc.close(config)
                yield arsrc.num_records(config), lambda: None

        try:
            yield Session(pieces, None)
        finally:
            arsrc.close(config)

    return Contestant("arsrc, open", "arsrc", "opening all files, and closing them", opened)
