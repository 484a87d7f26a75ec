"""Contestants: arsrc, streaming inside a scan or outside, resident, and its parts on the host."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _data import DataSet
from _forms import is_lossy
from _harness import Contestant, Pieces, Session, Unable
from _train_step import Array, consume, start, step

import arsrc
from arsrc._host import registry

Body = Callable[[Array, Array], tuple[Array, None]]

BATCH = 256
_FIRST_BATCHES = 16

CHECKED = 2
"""Batches that are compared with the files, at least."""

MOST_STEPS = 1024
"""Steps of one compiled scan: an epoch, or so many of a long one."""

_PINNED = "pinned_host"
_WAITS = "waits for the last but one that it dispatched"

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


def iterate(
    data: DataSet, *, name: str = "arsrc", jitted: Callable[[Array, Array], Array] = step, **options: Any
) -> Contestant:
    """`iterate` feeding a jitted step."""
    config = config_for(data, f"{name}, iterate", **options)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        def pieces(turn: int) -> Pieces:
            loop = arsrc.iterate(config, first_state(config, turn))
            # The first piece, which is not timed, fills the read-ahead.
            yield from _one_in_flight(loop, jitted, BATCH, _FIRST_BATCHES)

        def batches() -> Any:
            return [batch.data for _, (_, batch) in zip(range(CHECKED), arsrc.iterate(config), strict=False)]

        try:
            yield Session(pieces, batches)
        finally:
            arsrc.close(config)

    counts = f"reading, transfers, one dispatch of the step a batch; {_WAITS}"
    return Contestant(f"{name}, iterate", "arsrc", counts, opened)


def segments(
    data: DataSet, num_batches: int, *, name: str = "arsrc", body: Body = consume, pinned: bool = False, **options: Any
) -> Contestant:
    """A jitted scan over so many batches that `iterate` stacks, in the device's memory or in pinned memory."""
    kind = "pinned segments" if pinned else "segments"
    name = f"{name}, {kind} of {num_batches}"
    config = config_for(data, name, **options)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        kinds = {memory.kind for memory in jax.devices()[0].addressable_memories()}
        if pinned and _PINNED not in kinds:
            raise Unable(f"the backend has no memory of the kind {_PINNED}")
        run = _run_pinned if pinned else jax.lax.scan
        where = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind=_PINNED if pinned else None)
        spec = jax.ShapeDtypeStruct((num_batches, BATCH, data.record_bytes), jnp.uint8, sharding=where)
        jitted = jax.jit(lambda carry, data: run(body, carry, data)[0])
        try:
            program = jitted.lower(start(), spec).compile()
        except jax.errors.JaxRuntimeError as error:
            raise Unable(f"refused by the backend: {str(error).splitlines()[0][:200]}") from error

        def loop_from(state: arsrc.SourceState | None) -> Any:
            return arsrc.iterate(config, state, num_batches=num_batches, device=where if pinned else None)

        def pieces(turn: int) -> Pieces:
            yield from _one_in_flight(loop_from(first_state(config, turn)), program, num_batches * BATCH)

        def batches() -> Any:
            with contextlib.closing(loop_from(None)) as loop:
                return np.asarray(next(loop)[1].data)[: data.num_records // BATCH]  # in which no record comes twice

        try:
            yield Session(pieces, batches)
        finally:
            arsrc.close(config)

    counts = f"reading, transfers, one dispatch for all steps of a segment; {_WAITS}"
    return Contestant(name, "arsrc", counts, opened)


def _one_in_flight(loop: Any, run: Callable[[Array, Array], Array], num_records: int, num_first: int = 1) -> Pieces:
    """Give the pieces of a loop in Python: before it goes on, it waits for what it dispatched before the last.

    So does who looks at the loss of the step before: the device always has work, and never more than it can soon do.
    A piece ends while the next one is under way, as all do but the first `num_first` of a training, which make one
    piece here.
    """
    before = carry = start()
    with contextlib.closing(loop):
        try:
            for number, (_, batch) in enumerate(loop):
                before, carry = carry, run(carry, batch.data)
                if number >= num_first:
                    yield num_records, before.block_until_ready
                before.block_until_ready()
        finally:
            carry.block_until_ready()  # nothing goes on in the turn of another


def _run_pinned(body: Body, carry: Array, segment: Array) -> tuple[Array, None]:
    """A scan over a segment in pinned memory of the host, which has the next batch moved while a step runs."""
    moved = lambda number: jax.device_put(segment[number], jax.memory.Space.Device)  # noqa: E731
    last = len(segment) - 1

    def both(carried: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        carry, batch = carried
        following = moved(jnp.minimum(number + 1, last))
        return (body(carry, batch)[0], following), None

    (carry, _), _ = jax.lax.scan(both, (carry, moved(0)), jnp.arange(last + 1))
    return carry, None


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
