"""Loops over batches: `scan_epoch` and `scan_steps` inside jit, `iterate` outside."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from arsrc import source
from arsrc import state as source_state
from arsrc._host import registry
from arsrc._host.requests import Request
from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcTypeError, ArsrcValueError, message
from arsrc.order import PAD_ID
from arsrc.state import Batch, SourceState

Carry = TypeVar("Carry")
NextBatch = Callable[[ArrayRecordSourceConfig, SourceState], tuple[SourceState, Batch]]
Body = Callable[[Carry, Batch], tuple[Carry, Any]]


def scan_epoch(
    config: ArrayRecordSourceConfig,
    state: SourceState,
    carry: Carry,
    body: Body[Carry],
    *,
    batches_per_fetch: int = 1,
    resident: Any = None,
    next_batch: NextBatch | None = None,
) -> tuple[SourceState, Carry, Any]:
    """Run `body` over the `steps_per_epoch` next batches, as one `jax.lax.scan`.

    Args:
        config: The source.
        state: Where to start; an epoch's beginning, usually.
        carry: First carry of `body`.
        body: `body(carry, batch) -> (carry, output)`, as for `jax.lax.scan`.
        batches_per_fetch: Batches that one callback brings; more of them cost fewer callbacks and more memory.
        resident: The table of `load_resident`, to gather from instead of reading files.
        next_batch: Replaces `arsrc.next_batch`; with it, `batches_per_fetch` must be 1.

    Returns:
        `(state, carry, outputs)`, outputs stacked on a leading axis of steps.

    Raises:
        ArsrcValueError: `batches_per_fetch` is less than 1, or more than 1 with `next_batch`.
    """
    num_steps = source.steps_per_epoch(config)
    return scan_steps(
        config,
        state,
        carry,
        body,
        num_steps,
        batches_per_fetch=batches_per_fetch,
        resident=resident,
        next_batch=next_batch,
    )


def scan_steps(
    config: ArrayRecordSourceConfig,
    state: SourceState,
    carry: Carry,
    body: Body[Carry],
    num_steps: int,
    *,
    batches_per_fetch: int = 1,
    resident: Any = None,
    next_batch: NextBatch | None = None,
) -> tuple[SourceState, Carry, Any]:
    """Run `body` over the `num_steps` next batches, as one `jax.lax.scan`.

    Past the last epoch `body` gets batches without valid rows: mind `batch.mask`.

    Args:
        config: The source.
        state: Where to start.
        carry: First carry of `body`.
        body: `body(carry, batch) -> (carry, output)`.
        num_steps: Static, at least 0.
        batches_per_fetch: As for `scan_epoch`; need not divide `num_steps`.
        resident: As for `scan_epoch`.
        next_batch: As for `scan_epoch`.

    Returns:
        `(state, carry, outputs)`, outputs stacked on a leading axis of `num_steps`.

    Raises:
        ArsrcValueError: A number is out of range, or `batches_per_fetch` is more than 1 with `next_batch`.
    """
    if num_steps < 0 or batches_per_fetch < 1:
        raise ArsrcValueError(
            message(
                "scan_steps",
                "needs num_steps of at least 0 and batches_per_fetch of at least 1",
                num_steps=num_steps,
                batches_per_fetch=batches_per_fetch,
            )
        )
    if next_batch is not None and batches_per_fetch > 1:
        raise ArsrcValueError(
            message(
                "scan_steps",
                "a next_batch of your own brings one batch at a time",
                "Leave batches_per_fetch at 1.",
                batches_per_fetch=batches_per_fetch,
            )
        )
    if batches_per_fetch == 1:
        fetch = next_batch or functools.partial(source.next_batch, resident=resident)
        return _scan_single(config, state, carry, body, num_steps, fetch)
    num_fetches, rest = divmod(num_steps, batches_per_fetch)

    def fetch_and_run(carry: Any, _: None, *, num_batches: int = batches_per_fetch) -> tuple[Any, Any]:
        state, inner = carry
        state, batches = source.next_batches(config, state, num_batches, resident=resident)
        inner, outputs = jax.lax.scan(body, inner, batches)
        return (state, inner), outputs

    (state, carry), outputs = jax.lax.scan(fetch_and_run, (state, carry), length=num_fetches)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(num_fetches * batches_per_fetch, *leaf.shape[2:]), outputs)
    if rest:
        (state, carry), last = fetch_and_run((state, carry), None, num_batches=rest)
        outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last)
    return state, carry, outputs


def _scan_single(
    config: ArrayRecordSourceConfig,
    state: SourceState,
    carry: Carry,
    body: Body[Carry],
    num_steps: int,
    next_batch: NextBatch,
) -> tuple[SourceState, Carry, Any]:
    def step(carry: Any, _: None) -> tuple[Any, Any]:
        state, inner = carry
        state, batch = next_batch(config, state)
        inner, output = body(inner, batch)
        return (state, inner), output

    (state, carry), outputs = jax.lax.scan(step, (state, carry), length=num_steps)
    return state, carry, outputs


def iterate(
    config: ArrayRecordSourceConfig, state: SourceState | None = None, *, device: Any = None
) -> Iterator[tuple[SourceState, Batch]]:
    """Return an iterator of `(state after the batch, batch)`, without callbacks, for loops outside jit; host.

    The same batches as `next_batch`, read ahead on threads, the next one transferred while this one is used.
    Ends when the source is exhausted.

    Args:
        config: The source.
        state: Where to start; defaults to `init(config)`.
        device: Device or sharding of the arrays; defaults to JAX's default device.

    Raises:
        ArsrcError: As for `init`, at once; and what went wrong with a record, with its type, at its batch.
            Iterate again from the last state to go on.
    """
    start = source_state.init(config) if state is None else state
    if isinstance(start.index, jax.core.Tracer):
        raise ArsrcTypeError(
            message("iterate", "runs on the host, not inside a JAX transformation", "Use scan_epoch there.")
        )
    return _batches(config, start, device)


def _batches(
    config: ArrayRecordSourceConfig, start: SourceState, device: Any
) -> Iterator[tuple[SourceState, Batch]]:
    host = registry.source(config)
    key_words = np.asarray(jax.random.key_data(start.key)).tolist()
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(source.element_spec(config))]
    treedef = jax.tree.structure(host.elements.spec)

    def fetch(request: Request) -> tuple[Request, tuple[SourceState, Batch]]:
        loaded = host.get(request)
        ids = loaded.record_ids[0, 0]
        leaves = [source.narrowed(leaf[0, 0], dtype) for leaf, dtype in zip(loaded.leaves, dtypes, strict=True)]
        batch = Batch(data=jax.tree.unflatten(treedef, leaves), mask=ids != np.uint32(PAD_ID), record_ids=ids)
        index, epoch = np.array(loaded.after.states[0][:2], np.uint32)
        # One call for everything: each costs more than the transfer of a small leaf.
        batch, index, epoch = jax.device_put((batch, index, epoch), device)
        return loaded.after, (SourceState(index=index, epoch=epoch, key=start.key), batch)

    request = Request(((int(start.index), int(start.epoch), *key_words),), 1, 0, config.batch_size)
    item = None
    while item is not None or not host.batches.is_exhausted(request):
        after, result = item or fetch(request)
        # The next transfer starts before this batch is used, unless that would mean waiting for files.
        item = fetch(after) if host.is_ready(after) else None
        yield result
        request = after
