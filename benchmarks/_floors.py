"""Contestants that nothing on their side of the bridge can beat: a bare callback, a gather, a memcpy."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from _arsrc import BATCH, CHECKED, MOST_STEPS, Body
from _data import DataSet
from _harness import Contestant, Pieces, Session
from _train_step import Array, consume, start
from jax.experimental import io_callback


def _repeated(program: Callable[[], Array], num_records: int) -> Pieces:
    """Give pieces that each run a compiled program to its end."""
    while True:
        carry = program()
        yield num_records, carry.block_until_ready
        carry.block_until_ready()


def bare_callback(data: DataSet) -> Contestant:
    """A scan whose callback does nothing: it returns the same array each time."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        steps = min(data.num_records // BATCH, MOST_STEPS)
        batch = data.expected(np.arange(BATCH))
        spec = jax.ShapeDtypeStruct(batch.shape, batch.dtype)

        def body(carry: Array, _: None) -> tuple[Array, None]:
            return consume(carry, io_callback(lambda: batch, spec, ordered=False))

        program = jax.jit(lambda carry: jax.lax.scan(body, carry, length=steps)[0])
        yield Session(lambda _: _repeated(lambda: program(start()), steps * BATCH), None)

    return Contestant("bare io_callback", "floor", "the scan, the step, a callback that returns a constant", opened)


def told_callback(data: DataSet, *, gathers: bool = False) -> Contestant:
    """The same callback, told which records are wanted; it may gather them from an array in memory, as by hand."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        steps = min(data.num_records // BATCH, MOST_STEPS)
        table = data.expected(np.arange(data.num_records))
        spec = jax.ShapeDtypeStruct((BATCH, data.record_bytes), np.uint8)
        constant = table[:BATCH]

        def rows(ids: Array) -> np.ndarray:
            return table.take(np.asarray(ids), axis=0) if gathers else constant

        def body(carry: Array, ids: Array) -> tuple[Array, None]:
            return consume(carry, io_callback(rows, spec, ids, ordered=False))

        program = jax.jit(lambda carry, ids: jax.lax.scan(body, carry, ids)[0])

        def pieces(turn: int) -> Pieces:
            order = np.random.default_rng(turn).permutation(data.num_records)
            ids = jnp.asarray(np.resize(order, (steps, BATCH)).astype(np.uint32))
            return _repeated(lambda: program(start(), ids), steps * BATCH)

        yield Session(pieces, None)

    if gathers:
        counts = "the scan, the step, a callback that gathers from a NumPy array of all records; the order is given"
        return Contestant("io_callback by hand", "floor", counts, opened)
    counts = "the scan, the step, a callback that returns a constant and does not look at what it is told"
    return Contestant("io_callback with an operand", "floor", counts, opened)


def gather_on_device(
    data: DataSet, *, body: Body = consume, num_steps: int | None = None, fetch: int = 1
) -> Contestant:
    """A scan over a table on the device, with the ids of each batch given; `fetch` batches gathered at once."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        steps = (num_steps or min(data.num_records // BATCH, MOST_STEPS)) // fetch * fetch
        table = jnp.asarray(data.expected(np.arange(data.num_records)))
        rows = lambda ids, table: table.at[ids].get(mode="promise_in_bounds")  # noqa: E731

        @jax.jit
        def program(carry: Array, table: Array, ids: Array) -> Array:
            if fetch == 1:
                return jax.lax.scan(lambda carry, ids: body(carry, rows(ids, table)), carry, ids)[0]
            groups = ids.reshape(-1, fetch, BATCH)
            return jax.lax.scan(lambda carry, ids: jax.lax.scan(body, carry, rows(ids, table)), carry, groups)[0]

        def order(turn: int) -> Array:
            ids = np.random.default_rng(turn).permutation(data.num_records)
            return jnp.asarray(np.resize(ids, (steps, BATCH)).astype(np.uint32))

        def pieces(turn: int) -> Pieces:
            ids = order(turn)
            return _repeated(lambda: program(start(), table, ids), steps * BATCH)

        yield Session(pieces, lambda: [rows(ids, table) for ids in order(0)[:CHECKED]])

    counts = "the scan, the step, a gather from device memory; the order is given"
    name = "device gather" if fetch == 1 else f"gather on the device, {fetch} at once"
    return Contestant(name, "floor", counts, opened)


def on_device(data: DataSet, *, body: Body, name: str, num_steps: int) -> Contestant:
    """A scan of the step alone, over a batch that is there."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        batch = jnp.asarray(data.expected(np.arange(BATCH)))
        program = jax.jit(lambda carry, batch: jax.lax.scan(lambda c, _: body(c, batch), carry, length=num_steps)[0])
        yield Session(lambda _: _repeated(lambda: program(start(), batch), num_steps * BATCH), None)

    return Contestant(name, "floor", "the scan and the step, without any reading", opened)


def memcpy(data: DataSet) -> Contestant:
    """Copying as many bytes as a batch has out of ordinary memory, in order, on one thread."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        source = data.expected(np.arange(data.num_records))
        out = np.empty((BATCH, data.record_bytes), np.uint8)

        def pieces(turn: int) -> Pieces:
            del turn
            while True:
                for first in range(0, data.num_records - BATCH + 1, BATCH):
                    np.copyto(out, source[first : first + BATCH])
                    yield BATCH, lambda: None

        yield Session(pieces, None)

    return Contestant("memcpy", "floor", "one thread, memory to memory, in order; no files, no step", opened)
