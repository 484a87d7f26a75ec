"""Loops over batches inside jit: `scan_epoch` and `scan_steps`."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from arsrc import fetch, sizes, slow_loops
from arsrc.any_config import AnyConfig
from arsrc.codecs.check import whole_number
from arsrc.devices.shards import AxisName
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.mesh import next_global_batch
from arsrc.types import SourceState, check_state

Carry = TypeVar("Carry")
Body = Callable[[Carry, Any], tuple[Carry, Any]]

_MOST_STEPS = 2**31 - 1
"""What a loop of JAX counts."""


def scan_epoch(
    config: AnyConfig,
    state: SourceState,
    carry: Carry,
    body: Body[Carry],
    *,
    batches_per_fetch: int = 1,
    axis_name: AxisName | None = None,
    mesh: Mesh | None = None,
    resident: Any = None,
    unroll: int | bool = 1,
) -> tuple[SourceState, Carry, Any]:
    """Run `body` over the `steps_per_epoch` next batches, as one `jax.lax.scan`.

    Args:
        config: The source.
        state: Where to start; an epoch's beginning, usually.
        carry: First carry of `body`.
        body: `body(carry, batch) -> (carry, output)`, as for `jax.lax.scan`.
        batches_per_fetch: Most batches that one callback brings; more of them cost fewer callbacks and more memory.
            Somewhat fewer are brought where that divides the steps without a rest.
        axis_name: The mesh axis, or axes, that the batch is divided over: inside `jax.shard_map` as for
            `next_batch`; outside of it together with `mesh`, as for `next_global_batch`.
        mesh: The mesh of `axis_name`, outside of `shard_map`.
        resident: The table of `load_resident`, to gather from instead of reading files.
        unroll: As for `jax.lax.scan`: how many steps an iteration of the compiled loop is made of; True leaves no
            loop. On CPUs, gradients of convolutions are many times slower in any loop that is left.

    Returns:
        `(state, carry, outputs)`, outputs stacked on a leading axis of steps.

    Raises:
        ArsrcValueError: `batches_per_fetch` is less than 1, or options exclude each other.
    """
    return scan_steps(
        config,
        state,
        carry,
        body,
        sizes.steps_per_epoch(config),
        batches_per_fetch=batches_per_fetch,
        axis_name=axis_name,
        mesh=mesh,
        resident=resident,
        unroll=unroll,
    )


def scan_steps(
    config: AnyConfig,
    state: SourceState,
    carry: Carry,
    body: Body[Carry],
    num_steps: int,
    *,
    batches_per_fetch: int = 1,
    axis_name: AxisName | None = None,
    mesh: Mesh | None = None,
    resident: Any = None,
    unroll: int | bool = 1,
) -> tuple[SourceState, Carry, Any]:
    """Run `body` over the `num_steps` next batches, as one `jax.lax.scan`.

    Past the last epoch `body` gets batches without valid rows: mind `batch.mask`.

    Args:
        config: The source.
        state: Where to start.
        carry: First carry of `body`.
        body: `body(carry, batch) -> (carry, output)`.
        num_steps: Static, in `[0, 2**31)`.
        batches_per_fetch: As for `scan_epoch`; need not divide `num_steps`.
        axis_name: As for `scan_epoch`.
        mesh: As for `scan_epoch`.
        resident: As for `scan_epoch`.
        unroll: As for `scan_epoch`.

    Returns:
        `(state, carry, outputs)`, outputs stacked on a leading axis of `num_steps`.

    Raises:
        ArsrcValueError: A number is out of range, or options exclude each other.
    """
    check_state("scan_steps", state)
    _check_body(body)
    num_steps = whole_number("scan_steps", "num_steps", num_steps, 0, _MOST_STEPS)
    batches_per_fetch = whole_number("scan_steps", "batches_per_fetch", batches_per_fetch, 1)
    batches_per_fetch = _fetch_size(num_steps, batches_per_fetch)
    fetch = _fetcher(batches_per_fetch, axis_name, mesh, resident)
    num_fetches, rest = divmod(num_steps, batches_per_fetch)
    if isinstance(unroll, bool):
        unroll = max(num_steps, 1) if unroll else 1
    unroll = whole_number("scan_steps", "unroll", unroll, 1)

    def step(carry: Any, batch: Any) -> tuple[Any, Any]:
        result: Any = body(carry, batch)
        if not (isinstance(result, tuple) and len(result) == 2):
            fix = "Return (carry, None) where there is nothing to put out."
            kind = f"tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            raise ArsrcTypeError("scan_steps", "body must return (carry, output)", fix, returned=kind)
        return result

    def run(carry: Any, _: None, num_batches: int = batches_per_fetch) -> tuple[Any, Any]:
        state, inner = carry
        state, batches = fetch(config, state, num_batches)
        if batches_per_fetch == 1:
            inner, outputs = step(inner, batches)
        else:
            inner, outputs = _scan(step, inner, batches, length=num_batches, unroll=unroll)
        return (state, inner), outputs

    def loop(state: SourceState, carry: Any) -> tuple[SourceState, Any, Any]:
        at_once = max(unroll // batches_per_fetch, 1)
        (state, carry), outputs = _scan(run, (state, carry), length=num_fetches, unroll=at_once)
        if batches_per_fetch > 1:
            outputs = jax.tree.map(lambda leaf: leaf.reshape(num_fetches * batches_per_fetch, *leaf.shape[2:]), outputs)
        if rest:
            (state, carry), last = run((state, carry), None, num_batches=rest)
            outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last)
        return state, carry, outputs

    return slow_loops.run(loop, state, carry)


def _scan(body: Any, carry: Any, xs: Any = None, *, length: int, unroll: int) -> tuple[Any, Any]:
    """Do what `jax.lax.scan` does, without the loop that it makes of a single step."""
    return jax.lax.scan(body, carry, xs, length, unroll=unroll if unroll < length else length + 1)


def _check_body(body: object) -> None:
    if not callable(body):
        fix = "Arguments are config, state, carry, body."
        raise ArsrcTypeError("scan_steps", "body is no function", fix, body=type(body).__name__)


def _fetch_size(num_steps: int, most: int) -> int:
    """Return how many batches to fetch at once: `most`, or somewhat fewer where that leaves no rest.

    A smaller fetch at the end does not continue what the host has read ahead, which would be lost.
    """
    return next((size for size in range(most, most // 2, -1) if num_steps % size == 0), most)


def _fetcher(
    batches_per_fetch: int,
    axis_name: AxisName | None,
    mesh: Mesh | None,
    resident: Any,
) -> Callable[[AnyConfig, SourceState, int], tuple[SourceState, Any]]:
    """Return what brings batches: `fetch(config, state, num_batches)`, without an axis of batches if it is one."""
    options = {"axis_name": axis_name, "mesh": mesh, "resident": resident}
    given = [name for name, value in options.items() if value is not None]
    single = batches_per_fetch == 1
    if mesh is not None:
        if axis_name is None:
            fix = 'For example axis_name="data".'
            raise ArsrcValueError("scan_steps", "mesh goes with axis_name", fix, given=given)
        if resident is not None:
            fix = "Use jax.shard_map, and next_batch(config, state, axis_name=..., resident=table) in it."
            raise ArsrcValueError("scan_steps", "mesh does not go with resident", fix, given=given)
        return lambda config, state, num_batches: next_global_batch(
            config, state, mesh=mesh, axis_name=axis_name, num_batches=None if single else num_batches
        )
    options = {"axis_name": axis_name, "resident": resident}
    if single:
        return lambda config, state, _: fetch.next_batch(config, state, **options)
    return functools.partial(fetch.next_batches, **options)
