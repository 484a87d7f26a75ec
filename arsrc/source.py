"""The bridge: `next_batch` and its kin, pure functions whose reading hides behind the package's only `io_callback`.

What crosses the bridge is a few words of state one way and decoded arrays the other. The host computes the same
order from the same definition, which lets it read ahead; ids and masks are computed on the device and cost
nothing where they are not used.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from arsrc import arithmetic, order
from arsrc._host import registry
from arsrc._host.read_ahead import Request
from arsrc._host.source import HostSource, Schema
from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcReadError, ArsrcValueError, message, sides
from arsrc.resident import check_table, gather
from arsrc.state import Array, Batch, SourceState, checked_ids, next_rows

Leaves = Sequence[Any]


def next_batch(
    config: ArrayRecordSourceConfig, state: SourceState, *, resident: Any = None
) -> tuple[SourceState, Batch]:
    """Return the next batch, and the state after it.

    Runs eagerly and under `jit`, `scan`, `fori_loop`, `while_loop`, `cond`, `vmap` and inside `grad`. The same
    arguments give the same batch, bit for bit. An exhausted state gives a batch without valid rows and stays.

    Args:
        config: The source.
        state: From `init`, `next_batch`, or a checkpoint.
        resident: The table of `load_resident`: gather from it on the device, with no callback.

    Returns:
        `(state, batch)`; leaves of `batch.data` are `[batch_size, ...]`.

    Raises:
        ArsrcValueError: `resident` is not the table of this data set.
        jax.errors.JaxRuntimeError: A record cannot be read or decoded; its text holds the `[arsrc]` message.
            The state is as it was, and the source stays usable.
    """
    return _next_batch(_schema(config), state, resident)


def next_batches(
    config: ArrayRecordSourceConfig, state: SourceState, num_batches: int, *, resident: Any = None
) -> tuple[SourceState, Batch]:
    """Return the next `num_batches` batches with one callback, and the state after them.

    Args:
        config: The source.
        state: A state of it.
        num_batches: Static, at least 1.
        resident: As for `next_batch`.

    Returns:
        `(state, batch)`; every leaf of `batch` has two leading axes `[num_batches, batch_size]`.

    Raises:
        ArsrcValueError: `num_batches` is less than 1.
        jax.errors.JaxRuntimeError: As for `next_batch`.
    """
    if num_batches < 1:
        raise ArsrcValueError(message("next_batches", "needs at least one", num_batches=num_batches))
    return _next_batches(_schema(config), int(num_batches), state, resident)


def peek(config: ArrayRecordSourceConfig, state: SourceState) -> Batch:
    """Return the batch that `next_batch` would give, without a new state."""
    return _next_batch(_schema(config), state, None)[1]


def batch_at(
    config: ArrayRecordSourceConfig, state: SourceState, start: int | Array, size: int | None = None
) -> Batch:
    """Return `size` records from position `start` of the state's epoch, going on at its beginning after its end.

    Random access in the epoch's order; the state does not move.

    Args:
        config: The source.
        state: Gives key and epoch; its index plays no part.
        start: Position in `[-num_records, num_records)`, negative from the end; int or integer[], may be
            traced, and is then taken modulo `num_records`.
        size: Records, static; defaults to `batch_size`.

    Returns:
        A batch of `size` rows, all valid.

    Raises:
        ArsrcIndexError: `start` is out of range (where it is not traced).
        ArsrcValueError: `size` is less than 1.
    """
    schema = _schema(config)
    size = config.batch_size if size is None else int(size)
    if size < 1:
        raise ArsrcValueError(message("batch_at", "needs at least one record", size=size))
    if isinstance(start, jax.core.Tracer):
        start = _modulo(start, schema.plan.num_records)
    else:
        num_records = schema.plan.num_records
        start = checked_ids("batch_at", "start", start, -num_records, num_records)
    return _batch_at(schema, size, state, start)


def take(config: ArrayRecordSourceConfig, record_ids: Any) -> Batch:
    """Return the records with these ids, in this order.

    Args:
        config: The source.
        record_ids: integer[...] in `[0, num_records)`; may be traced. A padding id (2**32 - 1) gives a row of
            zeros with a False mask, so that `take(config, batch.record_ids)` is `batch`.

    Returns:
        A batch with leading axes `record_ids.shape`.

    Raises:
        ArsrcIndexError: An id is not in the data set (where ids are not traced; else a `JaxRuntimeError`).
    """
    schema = _schema(config)
    if not isinstance(record_ids, jax.core.Tracer):
        values = np.asarray(record_ids)
        pads = values == arithmetic.PAD_ID
        stand_in = np.where(pads, 0, values)
        record_ids = checked_ids("take", "record_ids", stand_in, 0, schema.plan.num_records)
        record_ids = jnp.where(pads, np.uint32(arithmetic.PAD_ID), record_ids)
    return _take(schema, checked_ids("take", "record_ids", record_ids, 0, 2**32))


def num_records(config: ArrayRecordSourceConfig) -> int:
    """Return the number of records in the data set; host, or while tracing."""
    return registry.source(config).plan.num_records


def steps_per_epoch(config: ArrayRecordSourceConfig) -> int:
    """Return the number of batches in an epoch; host, or while tracing.

    `num_records // batch_size` with `remainder="drop"`, else rounded up. Under "wrap" epochs do not end with a
    batch: it is the number of batches that hold one epoch's records.
    """
    return registry.source(config).plan.steps_per_epoch


def total_steps(config: ArrayRecordSourceConfig) -> int | None:
    """Return the number of batches until the source is exhausted, None if endless; host, or while tracing."""
    return registry.source(config).plan.total_steps


def element_spec(config: ArrayRecordSourceConfig) -> Any:
    """Return the PyTree of `jax.ShapeDtypeStruct` of one element; host, or while tracing.

    Dtypes are those that arrive on the device: with 64-bit types off, 64-bit leaves arrive with 32.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)),
        registry.source(config).codec.element_spec(),
    )


def batch_spec(config: ArrayRecordSourceConfig) -> Batch:
    """Return the `Batch` of `jax.ShapeDtypeStruct` that `next_batch` gives; host, or while tracing."""
    size = (config.batch_size,)
    return Batch(
        data=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(size + leaf.shape, leaf.dtype), element_spec(config)),
        mask=jax.ShapeDtypeStruct(size, np.dtype(bool)),
        record_ids=jax.ShapeDtypeStruct(size, np.dtype(np.uint32)),
    )


def reset_cache(config: ArrayRecordSourceConfig) -> None:
    """Forget the decoded elements that `cacheable=True` keeps; host."""
    registry.source(config).reset_cache()


def close(config: ArrayRecordSourceConfig) -> None:
    """Close the files, threads and caches of `config`; host. They open again when it is next used."""
    registry.close(config)


def io_metrics(config: ArrayRecordSourceConfig) -> dict[str, float]:
    """Return what the host did since the source was opened; host.

    Returns:
        `records_read` and `bytes_read` from files, `seconds_read` spent loading (summed over threads),
        `seconds_waited` by callers for data, `cache_hits` (records), `batches_served`, and of these
        `batches_ready` when they were asked for.
    """
    return registry.source(config).metrics.snapshot()


def _schema(config: ArrayRecordSourceConfig) -> Schema:
    return registry.source(config).schema


@functools.partial(jax.jit, static_argnums=0)
def _next_batch(schema: Schema, state: SourceState, resident: Any) -> tuple[SourceState, Batch]:
    state_after, batch = _fetch(schema, 1, state, resident)
    return state_after, jax.tree.map(lambda leaf: leaf[0], batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _next_batches(
    schema: Schema, num_batches: int, state: SourceState, resident: Any
) -> tuple[SourceState, Batch]:
    return _fetch(schema, num_batches, state, resident)


def _fetch(schema: Schema, num_batches: int, state: SourceState, resident: Any) -> tuple[SourceState, Batch]:
    plan = schema.plan
    steps = np.arange(num_batches, dtype=np.uint32)
    index, epoch = arithmetic.advance(jnp, plan, state.index[None], state.epoch[None], steps)
    each = jax.vmap(lambda i, e: next_rows(plan, SourceState(index=i, epoch=e, key=state.key))[:2])
    record_ids, mask = each(index, epoch)

    if resident is not None:
        check_table(schema.codec.element_spec(), plan, resident)
        data = gather(plan, resident, record_ids, mask)
    else:
        words = jnp.concatenate([jnp.stack([state.index, state.epoch]), jax.random.key_data(state.key)])
        data = _call_host(_ReadBatches(schema, num_batches), schema, (num_batches, plan.batch_size), words)

    index, epoch = arithmetic.advance(jnp, plan, state.index, state.epoch, num_batches)
    state = SourceState(index=index, epoch=epoch, key=state.key)
    return state, Batch(data=data, mask=mask, record_ids=record_ids)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batch_at(schema: Schema, size: int, state: SourceState, start: Array) -> Batch:
    plan = schema.plan
    row = jnp.arange(size, dtype=jnp.uint32) % np.uint32(plan.num_records)
    position, _ = arithmetic.add_mod(jnp, jnp.broadcast_to(start, row.shape), row, np.uint32(plan.num_records))
    ids = order.record_at(jnp, plan, jax.random.key_data(state.key), state.epoch, position)
    return _take(schema, ids)


@functools.partial(jax.jit, static_argnums=0)
def _take(schema: Schema, record_ids: Array) -> Batch:
    flat = record_ids.ravel()
    data = _call_host(_ReadRecords(schema), schema, flat.shape, flat)
    data = jax.tree.map(lambda leaf: leaf.reshape(record_ids.shape + leaf.shape[1:]), data)
    return Batch(data=data, mask=record_ids != np.uint32(arithmetic.PAD_ID), record_ids=record_ids)


def _modulo(start: Array, num_records: int) -> Array:
    """Return a traced integer modulo `num_records` as u32, without leaving 32 bits."""
    size = np.uint32(num_records)
    distance = jnp.where(start < 0, -start, start).astype(jnp.uint32) % size
    return jnp.where((start < 0) & (distance > 0), size - distance, distance)


@dataclasses.dataclass(frozen=True)
class _ReadBatches:
    """Host side of `next_batches`; equal for equal configs, so that equal programs are equal."""

    schema: Schema
    num_batches: int

    def __call__(self, words: np.ndarray) -> Leaves:
        source = _source_of(self.schema)
        index, epoch, *key_words = words.tolist()
        return source.batches(Request(index, epoch, tuple(key_words), self.num_batches)).leaves


@dataclasses.dataclass(frozen=True)
class _ReadRecords:
    """Host side of `take`."""

    schema: Schema

    def __call__(self, record_ids: np.ndarray) -> Leaves:
        return _source_of(self.schema).elements(record_ids)


@dataclasses.dataclass(frozen=True)
class _Members:
    """Applies a reader to each member of an ensemble, and narrows the results to what the device takes."""

    read: Callable[[np.ndarray], Leaves]
    dtypes: tuple[np.dtype, ...]

    def __call__(self, operand: Any) -> Leaves:
        operand = np.asarray(operand)
        if operand.ndim == 1:
            leaves = self.read(operand)
        else:
            members = [self.read(member) for member in operand.reshape(-1, operand.shape[-1])]
            leaves = [np.stack(leaf).reshape(operand.shape[:-1] + leaf[0].shape) for leaf in zip(*members, strict=True)]
        return [narrowed(leaf, dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]


def _call_host(
    read: Callable[[np.ndarray], Leaves], schema: Schema, lead: tuple[int, ...], operand: Array
) -> Any:
    """Call `read(operand u32[n])` on the host; returns the element tree with leaves `[*lead, ...]`."""
    leaves, treedef = jax.tree.flatten(schema.codec.element_spec())
    dtypes = tuple(jax.dtypes.canonicalize_dtype(leaf.dtype) for leaf in leaves)
    results = [
        jax.ShapeDtypeStruct(lead + leaf.shape, dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(treedef, _call_members(_Members(read, dtypes), results, operand))


def _call_members(read: _Members, results: list[jax.ShapeDtypeStruct], operand: Array) -> list[Array]:
    """Call the host for an operand with any number of leading ensemble axes: one callback for all of them."""
    members = operand.shape[:-1]
    shapes = [jax.ShapeDtypeStruct(members + leaf.shape, leaf.dtype) for leaf in results]

    @jax.custom_batching.custom_vmap
    def call(operand: Array) -> list[Array]:
        # io_callback: a read has a cost and can fail, so it must run once and where it stands, neither be
        # dropped, repeated nor moved. Unordered: states, not the order of calls, decide what is read.
        return io_callback(read, shapes, operand, ordered=False)  # type: ignore[no-any-return]

    @call.def_vmap
    def _(size: int, batched: Any, operand: Array) -> tuple[list[Array], list[bool]]:
        del size, batched
        return _call_members(read, results, operand), [True] * len(results)

    return call(operand)  # type: ignore[no-any-return]


def narrowed(leaf: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a leaf with the dtype that the device takes; integers that do not fit are an error."""
    if leaf.dtype == dtype:
        return leaf
    if leaf.dtype.kind in "iu" and leaf.size:
        low, high, limits = leaf.min(), leaf.max(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise ArsrcValueError(
                message(
                    "decode",
                    f"{leaf.dtype} values do not fit {dtype}, and 64-bit types are off",
                    "Set jax_enable_x64, or let the codec give smaller numbers.",
                    low=int(low),
                    high=int(high),
                )
            )
    return leaf.astype(dtype)


def _source_of(schema: Schema) -> HostSource:
    """Return the open source of a compiled program, checking that its data is what the program was traced for."""
    source = registry.source(schema.config)
    if source.schema is not schema and source.schema != schema:
        raise ArsrcReadError(
            message(
                "next_batch",
                "the files changed after the program was compiled",
                "Restore them, or trace the program again (jax.clear_caches()):"
                + sides(then=_text(schema), now=_text(source.schema)),
            )
        )
    return source


def _text(schema: Schema) -> str:
    return f"{schema.plan.num_records} records, {schema.codec}"
