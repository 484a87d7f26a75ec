"""Contestants: arsrc in a loop in Python, batch by batch or in segments."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _arsrc import BATCH, CHECKED, Body, config_for, first_state
from _data import DataSet
from _harness import Contestant, Pieces, Session, Unable
from _train_step import Array, consume, start, step

import arsrc

_FIRST_BATCHES = 16
_PINNED = "pinned_host"
_WAITS = "waits for the last but one that it dispatched"


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
    name = f"{name}, {'pinned ' * pinned}segments of {num_batches}"
    config = config_for(data, name, **options)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        where, program = _compiled(body, (num_batches, BATCH, data.record_bytes), pinned)

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


def _compiled(body: Body, shape: tuple[int, ...], pinned: bool) -> tuple[jax.sharding.Sharding, Any]:
    """Return where segments go, and the program over them; raises `Unable` where a backend has no pinned ones."""
    device = jax.devices()[0]
    if pinned and _PINNED not in {memory.kind for memory in device.addressable_memories()}:
        raise Unable(f"the backend has no memory of the kind {_PINNED}")
    where = jax.sharding.SingleDeviceSharding(device, memory_kind=_PINNED if pinned else None)
    run = _run_pinned if pinned else jax.lax.scan
    lowered = jax.jit(lambda carry, segment: run(body, carry, segment)[0]).lower(
        start(), jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=where)
    )
    try:
        return where, lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not pinned:
            raise
        raise Unable(f"refused by the backend: {str(error).splitlines()[0][:200]}") from error


def _run_pinned(body: Body, carry: Array, segment: Array) -> tuple[Array, None]:
    """A scan over a segment in pinned memory of the host, which has the next batch moved while a step runs."""
    moved = lambda number: jax.device_put(segment[number], jax.memory.Space.Device)  # noqa: E731

    def both(carried: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        carry, batch = carried
        following = moved(number)
        return (body(carry, batch)[0], following), None

    (carry, last), _ = jax.lax.scan(both, (carry, moved(0)), jnp.arange(1, len(segment)))
    return body(carry, last)


def _one_in_flight(loop: Any, run: Callable[[Array, Array], Array], num_records: int, num_first: int = 1) -> Pieces:
    """Give the pieces of a loop that waits, before it goes on, for what it dispatched before the last.

    So does who looks at the loss of the step before: the device always has work, and never more than it can soon do.
    A piece ends while the next one is under way, as in the midst of a training: to wait for the last dispatch would add
    a transfer that nothing hides to each turn. The first piece is `num_first` passes of the loop.
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
