"""`next_batch` and its kin: pure functions, of which only reading crosses the bridge to the host.

What crosses the bridge is a few words of state one way and decoded arrays the other. The host computes the same
order from the same definition, which lets it read ahead; ids and masks are computed on the device and cost
nothing where they are not used.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from arsrc._host import registry
from arsrc._host.open_source import OpenSource, Schema
from arsrc._host.serving.requests import Request
from arsrc.any_config import AnyConfig
from arsrc.bridge import call_host
from arsrc.codecs.check import whole_number
from arsrc.codecs.element_tree import leaf_paths
from arsrc.devices.resident import check_table, gather, table_spec
from arsrc.devices.shards import AxisName, hashable, num_askers, rows_of_device
from arsrc.errors import ArsrcReadError, ArsrcTypeError, ArsrcValueError, sides
from arsrc.host_call import HostCall, Leaves
from arsrc.keys import order_words
from arsrc.order import arithmetic, record_order
from arsrc.order.plan import PAD_ID
from arsrc.programs import compiled_for_each
from arsrc.state import Array, checked_ids, next_rows, padded_ids, whole_numbers
from arsrc.types import Batch, SourceState, check_state

T = TypeVar("T")

_MOST_BYTES = 2**48  # XLA ends the process where sizes overflow


def next_batch(
    config: AnyConfig,
    state: SourceState,
    *,
    axis_name: AxisName | None = None,
    resident: Any = None,
) -> tuple[SourceState, Batch]:
    """Return the next batch, and the state after it.

    Runs eagerly and under `jit`, `scan`, `fori_loop`, `while_loop`, `cond`, `vmap`, `jax.checkpoint` and inside
    `grad`. The same arguments give the same batch, bit for bit. An exhausted state gives a batch without valid rows
    and stays.

    Args:
        config: The source.
        state: From `init`, `next_batch`, or a checkpoint.
        axis_name: Inside a fully manual `jax.shard_map`: the mesh axis, or tuple of axes, that the batch is
            divided over. Device `d` of `D` reads and returns rows `[d * batch_size / D, (d + 1) * batch_size / D)`;
            devices along other axes get the same rows, read once.
        resident: The table of `load_resident`: gather from it on the device, with no callback.

    Returns:
        `(state, batch)`; leaves of `batch.data` are `[batch_size, ...]`, or `[batch_size / D, ...]`.

    Raises:
        ArsrcValueError: `batch_size` does not divide among the devices (at trace time); or `resident` is not the
            table of this data set; or a plain call in a program of several processes, where JAX would make one
            host read for all (when it is compiled).
        jax.errors.JaxRuntimeError: A record cannot be read or decoded, and `on_bad_record` is not "mask"; its text
            holds the `[arsrc]` message.
            A `ValueError` where JAX's fast path runs the program. What a signal handler raises during a read
            arrives so too: for Ctrl-C, the last line begins with `KeyboardInterrupt`. The state is as it was, and the
            source stays usable.
    """
    return _next("next_batch", config, None, state, axis_name, resident)


def next_batches(
    config: AnyConfig,
    state: SourceState,
    num_batches: int,
    *,
    axis_name: AxisName | None = None,
    resident: Any = None,
) -> tuple[SourceState, Batch]:
    """Return the next `num_batches` batches with one callback, and the state after them.

    Args:
        config: The source.
        state: A state of it.
        num_batches: Static, at least 1.
        axis_name: As for `next_batch`.
        resident: As for `next_batch`.

    Returns:
        `(state, batch)`; every leaf of `batch` has two leading axes `[num_batches, batch_size]`.

    Raises:
        ArsrcValueError: `num_batches` is less than 1, or so large that rows have no numbers.
        jax.errors.JaxRuntimeError: As for `next_batch`.
    """
    num_batches = whole_number("next_batches", "num_batches", num_batches, 1, PAD_ID // config.batch_size)
    return _next("next_batches", config, num_batches, state, axis_name, resident)


def peek(config: AnyConfig, state: SourceState) -> Batch:
    """Return the batch that `next_batch` would give, without a new state."""
    return _next("peek", config, None, state, None, None)[1]


def batch_at(config: AnyConfig, state: SourceState, start: int | Array, size: int | None = None) -> Batch:
    """Return `size` records from position `start` of the state's epoch, going on at its beginning after its end.

    Random access in the epoch's order; the state does not move.

    Args:
        config: The source.
        state: Gives key and epoch; its index plays no part.
        start: Position in `[-num_records, num_records)`, negative from the end; int or integer[], may be
            traced, and is then taken modulo `num_records`. Of a mixture, a position in its own epoch.
        size: Records, static; defaults to `batch_size`.

    Returns:
        A batch of `size` rows, all of the state's epoch, all valid but those of excluded records, and of a mixture's
        sources that have ended.

    Raises:
        ArsrcIndexError: `start` is out of range (where it is not traced).
        ArsrcValueError: `size` is less than 1.
        ArsrcTypeError: `size` or `start` is no integer.
    """
    schema = _schema(config)
    check_state("batch_at", state)
    size = config.batch_size if size is None else whole_number("batch_at", "size", size, 1)
    position = whole_numbers("batch_at", "start", start)
    if shape := position.shape:
        fix = "Use take for positions that are not neighbours, or jax.vmap."
        raise ArsrcTypeError("batch_at", "start must be one position", fix, shape=shape)
    num_records = schema.plan.num_records
    if isinstance(position, jax.core.Tracer):
        position = _modulo(position, num_records)
    else:
        position = checked_ids("batch_at", "start", position, -num_records, num_records)
    return _batch_at(schema, size, state, position)


def take(config: AnyConfig, record_ids: Any) -> Batch:
    """Return the records with these ids, in this order.

    Args:
        config: The source.
        record_ids: integer[...] in `[0, num_records)`; may be traced. A padding id (2**32 - 1) gives a row of
            zeros with a False mask, so that `take(config, batch.record_ids)` is `batch`, but for its epochs.

    Returns:
        A batch with leading axes `record_ids.shape`, whose `epochs` are 0.

    Raises:
        ArsrcIndexError: An id is not in the data set (where ids are not traced; else as for `next_batch`).
    """
    schema = _schema(config)
    record_ids = padded_ids("take", record_ids, schema.plan.num_records)
    return _take(schema, record_ids.shape, record_ids)


def _schema(config: AnyConfig) -> Schema:
    return registry.source(config).schema


def _next(
    where: str,
    config: AnyConfig,
    num_batches: int | None,
    state: SourceState,
    axis_name: AxisName | None,
    resident: Any,
) -> tuple[SourceState, Batch]:
    schema = _schema(config)
    check_state(where, state)
    if resident is not None:
        check_table(table_spec(schema), schema.plan, resident)
    return _next_batches(schema, num_batches, hashable(axis_name), state, resident)


@compiled_for_each(3)
def _next_batches(
    schema: Schema, num_batches: int | None, axis_name: AxisName | None, state: SourceState, resident: Any
) -> tuple[SourceState, Batch]:
    """Return `num_batches` batches, or one without an axis of batches."""
    plan, steps = schema.plan, num_batches or 1
    rows = rows_of_device(plan, axis_name)

    index, epoch = arithmetic.advance(
        jnp, plan, state.index[None], state.epoch[None], np.arange(steps, dtype=np.uint32)
    )
    each = jax.vmap(lambda i, e: next_rows(plan, SourceState(index=i, epoch=e, key=state.key), *rows))
    record_ids, mask, epochs = each(index, epoch)  # [num_batches, num_rows]
    if resident is not None:
        data, held = gather(plan, resident, record_ids, mask, schema.config._masks)
    else:
        where = jnp.stack([jnp.asarray(rows[0], jnp.uint32), state.index, state.epoch])
        words = jnp.concatenate([where, order_words(plan, state.key)])
        read = _ReadBatches(schema, steps, rows[1], num_askers(axis_name))
        data, held = _call_host(read, schema, (steps, rows[1]), words)
    batch = _batch(data, mask, record_ids, epochs, held)

    index, epoch = arithmetic.advance(jnp, plan, state.index, state.epoch, steps)
    state = SourceState(index=index, epoch=epoch, key=state.key)
    return state, jax.tree.map(lambda leaf: leaf[0], batch) if num_batches is None else batch


@compiled_for_each(2)
def _batch_at(schema: Schema, size: int, state: SourceState, start: Array) -> Batch:
    plan = schema.plan
    row = jnp.arange(size, dtype=jnp.uint32) % np.uint32(plan.num_records)
    position, _ = arithmetic.add_mod(jnp, jnp.broadcast_to(start, row.shape), row, np.uint32(plan.num_records))
    words, valid = order_words(plan, state.key), jnp.ones(size, bool)
    ids, _, epochs = record_order.rows_at(jnp, plan, words, state.epoch, position, valid)
    return dataclasses.replace(_take(schema, ids.shape, ids), epochs=jnp.broadcast_to(epochs, ids.shape))


@compiled_for_each(2)
def _take(schema: Schema, shape: tuple[int, ...], record_ids: Array) -> Batch:
    flat = record_ids.ravel()
    read = _call_host(_ReadRecords(schema), schema, flat.shape, flat)
    data, held = jax.tree.map(lambda leaf: leaf.reshape(shape + leaf.shape[1:]), read)
    return _batch(data, record_ids != np.uint32(PAD_ID), record_ids, jnp.zeros_like(record_ids), held)


def _batch(data: Any, mask: Array, record_ids: Array, epochs: Array, held: Array | None) -> Batch:
    """Return a batch of rows of which those that the order gives no record for, or reading none, are masked."""
    if held is not None:
        mask, record_ids = held, jnp.where(held, record_ids, np.uint32(PAD_ID))
    return Batch(data=data, mask=mask, record_ids=record_ids, epochs=epochs)


def _modulo(start: Array, size: int) -> Array:
    """Return a traced integer modulo `size` as u32, without leaving 32 bits."""
    if start.dtype.itemsize == 8:
        return (start % np.array(size, start.dtype)).astype(jnp.uint32)
    if jnp.iinfo(start.dtype).min == 0:
        return start.astype(jnp.uint32) % np.uint32(size)
    start = start.astype(jnp.int32)
    distance = abs(start).astype(jnp.uint32) % np.uint32(size)  # that of -2**31 is right as a u32
    return jnp.where((start < 0) & (distance > 0), np.uint32(size) - distance, distance)


@dataclasses.dataclass(frozen=True)
class _ReadBatches:
    """Host side of `next_batches`; equal for equal configs, so that equal programs are equal."""

    schema: Schema
    num_batches: int
    num_rows: int
    num_askers: int

    def __call__(self, words: np.ndarray, outs: Leaves | None) -> tuple[Leaves, np.ndarray]:
        """Read for `words` u32[num_members, 3 + num_key_words]: first row, index, epoch, key words of each member."""
        first_row, states = words[0, 0], words[:, 1:]
        request = Request(
            states=tuple(map(tuple, states.tolist())),
            num_batches=self.num_batches,
            first_row=int(first_row),
            num_rows=self.num_rows,
            num_askers=self.num_askers,
        )

        def read(source: OpenSource) -> tuple[Leaves, np.ndarray]:
            loaded = source.get(request, outs)
            if source.schema is not self.schema and source.schema != self.schema:
                source.adopted.append(loaded.after)
            return loaded.leaves if outs is None else source.put(loaded.leaves, outs), loaded.record_ids

        return read_from(lambda: source_of(self.schema, request), read)


@dataclasses.dataclass(frozen=True)
class _ReadRecords:
    """Host side of `take`."""

    schema: Schema

    def __call__(self, record_ids: np.ndarray, outs: Leaves | None) -> tuple[Leaves, np.ndarray]:
        """Read `record_ids` u32[num_members, num_records]."""
        del outs

        return read_from(lambda: source_of(self.schema), lambda source: source.take(record_ids)), record_ids


def _call_host(
    read: Callable[..., tuple[Leaves, np.ndarray]], schema: Schema, lead: tuple[int, ...], operand: Array
) -> tuple[Any, Array | None]:
    """Call `read(operand u32[1, n], outs)` on the host.

    Returns:
        `(data, held)`: the element tree with leaves `[*lead, ...]`; and bool[*lead], which rows hold a record, where
        bad ones are masked, else None.
    """
    held = np.empty((), bool) if schema.config._masks else None
    spec = schema.codec.element_spec()
    leaves, treedef = jax.tree.flatten((spec, held))
    paths = (*leaf_paths(spec), *([] if held is None else ["mask"]))
    num_bytes = math.prod(lead) * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    if num_bytes > _MOST_BYTES:
        what, fix = f"a batch of {math.prod(lead)} records has {num_bytes} bytes", "Use smaller batches or elements."
        raise ArsrcValueError("read", what, fix)
    results = (jax.ShapeDtypeStruct(lead + leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves)
    call = HostCall(read, tuple(results), paths)
    found: tuple[Any, Array | None] = jax.tree.unflatten(treedef, call_host(call, operand))
    return found


def read_from(source: Callable[[], OpenSource], read: Callable[[OpenSource], T]) -> T:
    """Return `read(source())` of an open source, of the next where its files were closed meanwhile."""
    while True:
        one = source()
        try:
            return read(one)
        except ArsrcReadError:
            if one.can_read:
                raise


def source_of(schema: Schema, request: Request | None = None) -> OpenSource:
    """Return the open source of a program or loop.

    Args:
        schema: Of when the program was traced or the loop begun.
        request: What it asks for, where it may be a loop that goes on: with the files with which it began, if these
            were replaced meanwhile.

    Raises:
        ArsrcReadError: What the files hold now does not fit.
    """
    newer = registry.opened(schema.config)
    if newer.schema is schema or newer.schema == schema:
        return newer
    if request is not None and request not in newer.adopted:
        older = registry.replaced(schema)
        if older is not None and older.follows(request):
            return older
    if newer.schema.fits(schema):
        return newer
    raise ArsrcReadError(
        "read",
        "the files changed after the program was compiled or the loop begun",
        "Restore them, or begin the loop again, or trace the program again (jax.clear_caches()):"
        + _differences(schema, newer.schema),
    )


def _differences(then: Schema, now: Schema) -> str:
    """Return what of the numbers and the codec differs, on lines of both sides."""
    pairs = [
        (field.name, getattr(then.plan, field.name), getattr(now.plan, field.name))
        for field in dataclasses.fields(then.plan)
    ]
    pairs.append(("codec", then.codec, now.codec))
    changed = [(name, before, after) for name, before, after in pairs if before != after]
    return sides(
        then=", ".join(f"{name}={before!s:.200}" for name, before, _ in changed),
        now=", ".join(f"{name}={after!s:.200}" for name, _, after in changed),
    )
