"""`init` and the arithmetic of states.

Everything here runs eagerly and under every JAX transformation; nothing reads a record. Sizes are looked up
when a function is traced, which opens the files of a config once.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from arsrc._host import registry
from arsrc.any_config import AnyConfig
from arsrc.devices.shards import AxisName, hashable, rows_of_device
from arsrc.errors import ArsrcError, ArsrcIndexError, ArsrcTypeError, ArsrcValueError
from arsrc.keys import order_key, order_words
from arsrc.order import arithmetic, record_order
from arsrc.order.plan import PAD_ID, Plan
from arsrc.programs import compiled_for_each
from arsrc.types import Batch, SourceState, check_batch, check_state

Array = jax.Array
T = TypeVar("T")


def init(config: AnyConfig, key: Array | Mapping[str, Array] | None = None) -> SourceState:
    """Return the state before the first batch; opens the files.

    Runs eagerly, and in `jit` and `vmap` with a traced `key` (an ensemble of orders). The arrays of the state are its
    own, as are those of all states made from it: donating one takes nothing from another, nor the caller's key.

    Args:
        config: The source.
        key: Key of the order: a typed key, or the u32 words of an old-style one. Defaults to
            `jax.random.key(config.seed)`. With `stochastic=True` it is required, `config.stream_name` is folded
            into it, and a mapping of stream names to keys is accepted.

    Raises:
        ArsrcFileNotFoundError: A path matches no file.
        ArsrcReadError: A file is no complete ArrayRecord file.
        ArsrcValueError: The data set is empty, too large, or smaller than a batch with `remainder="drop"`; or
            `stochastic=True` and no key was given.
        ArsrcTypeError: `key` is no key.
    """
    registry.source(config, strict=True)
    return _first(config, key)


def _first(config: AnyConfig, key: Array | Mapping[str, Array] | None) -> SourceState:
    index, epoch = jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.uint32)  # two buffers: states are donated
    return SourceState(index=index, epoch=epoch, key=order_key(config, key))


def advance(config: AnyConfig, state: SourceState, steps: int | Array = 1) -> SourceState:
    """Return the state `steps` batches later, in closed form, without reading; an exhausted state stays.

    Args:
        config: The source.
        state: A state of it.
        steps: Batches to pass, in `[0, 2**32)`; int or integer[], may be traced.

    Raises:
        ArsrcValueError: `steps` is negative or too large (where it is not traced).
    """
    return _advance(*_checked("advance", config, state), _count("advance", "steps", steps))


def state_at(config: AnyConfig, step: int | Array, key: Any = None) -> SourceState:
    """Return the state after `step` batches from `init(config, key)`, in closed form, without reading.

    Args:
        config: The source.
        step: Batches since `init`, in `[0, 2**32)`; int or integer[], may be traced.
        key: As for `init`.

    Raises:
        ArsrcValueError: `step` is negative or too large (where it is not traced).
    """
    return _advance(_plan(config), _first(config, key), _count("state_at", "step", step))


def step_of(config: AnyConfig, state: SourceState) -> Array:
    """Return u32[], the number of batches between `init` and `state`; saturates at 2**32 - 1."""
    return _step_of(*_checked("step_of", config, state))


def is_exhausted(config: AnyConfig, state: SourceState) -> Array:
    """Return bool[], whether the end of the stream lies behind `state` and no batch is left."""
    return _is_exhausted(*_checked("is_exhausted", config, state))


def record_ids(config: AnyConfig, state: SourceState, *, axis_name: AxisName | None = None) -> Array:
    """Return u32[batch_size], ids of the records of the next batch; 2**32 - 1 in rows without a record.

    Nothing is read: records that `on_bad_record="mask"` will mask are among them.

    Args:
        config: The source.
        state: Where the batch comes from.
        axis_name: As for `next_batch`: the ids of this device's rows, u32[batch_size / D].
    """
    plan, state = _checked("record_ids", config, state)
    return _rows(plan, hashable(axis_name), state)[0]


def batch_mask(config: AnyConfig, state: SourceState, *, axis_name: AxisName | None = None) -> Array:
    """Return bool[batch_size], which rows of the next batch hold a record.

    Nothing is read: records that `on_bad_record="mask"` will mask count.

    Args:
        config: The source.
        state: Where the batch comes from.
        axis_name: As for `next_batch`: the mask of this device's rows, bool[batch_size / D].
    """
    plan, state = _checked("batch_mask", config, state)
    return _rows(plan, hashable(axis_name), state)[1]


def record_keys(config: AnyConfig, state: SourceState, batch: Batch) -> Array:
    """Return a PRNG key for each row of a batch, say for augmentation.

    A row's key depends on the state's key, its epoch and its record id alone: not on batch size, position or
    number of devices. (With keys of the "unsafe_rbg" kind it does: their `fold_in` is another one under `vmap`.)

    Args:
        config: The source.
        state: Any state of the stream that the batch is of, before it or after: its key is the same in all.
        batch: A batch, several that are stacked, or a device's part of one.

    Returns:
        Keys of the shape of `batch.mask`: key[batch_size], say.

    Raises:
        ArsrcTypeError: `batch` is no `Batch`.
    """
    _checked("record_keys", config, state)
    check_batch("record_keys", batch)
    return _record_keys(batch.record_ids.shape, state.key, batch.epochs, batch.record_ids)


def locate(config: AnyConfig, state: SourceState, record_id: int | Array) -> Array:
    """Return u32[...], the positions at which the state's epoch serves records: the inverse of the order.

    With `remainder="drop"`, positions from `steps_per_epoch * batch_size` on are passed over.

    Args:
        config: The source.
        state: Gives key and epoch; its index plays no part.
        record_id: int or integer[...] in `[0, num_records)`; may be traced, and is then not checked.

    Raises:
        ArsrcIndexError: An id is not in the data set (where it is not traced).
        ArsrcValueError: `config` is a mixture.
    """
    plan, state = _checked("locate", config, state)
    refuse_mixture(plan)
    ids = checked_ids("locate", "record_id", record_id, 0, plan.num_records)
    return _locate(plan, ids.shape, state, ids)


def refuse_mixture(plan: Plan) -> None:
    """Raise `ArsrcValueError` for the plan of a mixture, whose order has no inverse."""
    if plan.mixture is not None:
        what = "a mixture serves a record of a small source several times in an epoch, and one of a large source never"
        fix = "Locate it in its source, with a state of that: its key is jax.random.fold_in(state.key, number)."
        raise ArsrcValueError("locate", what, fix)


def checked_ids(
    where: str, name: str, value: Any, least: int, stop: int, kind: type[ArsrcError] = ArsrcIndexError
) -> Array:
    """Return `value` as u32[...]; what is not traced must be integers in `[least, stop)`, else `kind` is raised."""
    values = whole_numbers(where, name, value)
    if isinstance(values, jax.core.Tracer):
        return _traced_u32(values)
    outside = (values < least) | (values >= stop)
    if outside.any():
        wrong = int(values[outside].ravel()[0])
        raise kind(where, f"{name} must be in [{least}, {stop})", **{name: wrong})
    return jax.device_put((values.astype(np.int64) % stop).astype(np.uint32))  # jnp.asarray compiles for each shape


def padded_ids(where: str, record_ids: Any, num_records: int) -> Array:
    """Return record ids as u32[...]; what is not traced must be in the data set, or the padding id."""
    ids = whole_numbers(where, "record_ids", record_ids)
    if not isinstance(ids, jax.core.Tracer):
        checked_ids(where, "record_ids", ids[ids != PAD_ID], 0, num_records)
    return checked_ids(where, "record_ids", ids, 0, 2**32)


def whole_numbers(where: str, name: str, value: Any) -> Any:
    """Return `value` as an array of integers, which booleans are not; a traced one if it is or holds one.

    Raises:
        ArsrcTypeError: It is none.
    """
    leaves = jax.tree.leaves(value)
    try:
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        # NumPy would count a boolean among integers as one.
        has_booleans = any(isinstance(leaf, (bool, np.bool_)) for leaf in leaves)
        values: Any = jnp.asarray(value) if is_traced else np.asarray(value, bool if has_booleans else None)
    except (TypeError, ValueError) as error:
        fix = "Give an integer, an array of integers, or lists of them that are of one length."
        raise ArsrcTypeError(where, f"{name} must be integers", fix, **{name: type(value).__name__}) from error
    if is_traced and jnp.issubdtype(values.dtype, jnp.integer):
        return values
    if values.size == 0 or jnp.issubdtype(values.dtype, jnp.integer):
        return values if np.issubdtype(values.dtype, np.integer) else values.astype(np.int64)  # a list of none, int4
    if values.dtype == object and all(type(number) is int for number in values.flat):
        return values  # beyond 64 bits
    raise ArsrcTypeError(where, f"{name} must be integers", **{name: values.dtype})


def _traced_u32(value: Array) -> Array:
    """Return a traced integer as u32; what does not fit becomes 2**32 - 2, which is no record id."""
    limits = jnp.iinfo(value.dtype)
    stand_in = np.uint32(PAD_ID - 1)
    result = value.astype(jnp.uint32)
    if limits.min < 0:
        result = jnp.where(value < 0, stand_in, result)
    if limits.max > PAD_ID:
        result = jnp.where(value > np.array(PAD_ID, value.dtype), stand_in, result)
    return result


def _count(where: str, name: str, value: int | Array) -> Array:
    """Return a number of steps as u32[]."""
    number = checked_ids(where, name, value, 0, 2**32, ArsrcValueError)
    if number.shape:
        raise ArsrcTypeError(where, f"{name} must be one number", "Use jax.vmap.", shape=number.shape)
    return number


def _plan(config: AnyConfig) -> Plan:
    return registry.source(config).plan


def _checked(where: str, config: AnyConfig, state: SourceState) -> tuple[Plan, SourceState]:
    plan = _plan(config)
    check_state(where, state)
    return plan, state


def next_rows(
    plan: Plan, state: SourceState, first_row: int | Array = 0, num_rows: int | None = None
) -> tuple[Array, Array, Array]:
    """Return what some rows of the next batch are: all, or `num_rows` from `first_row` on.

    Returns:
        `(record_ids u32[num_rows], mask bool[num_rows], epochs u32[num_rows])`.
    """
    row = np.arange(num_rows or plan.batch_size, dtype=np.uint32) + jnp.asarray(first_row, jnp.uint32)
    position, epoch, valid = arithmetic.rows(jnp, plan, state.index, state.epoch, row)
    ids, valid, epochs = record_order.rows_at(jnp, plan, order_words(plan, state.key), epoch, position, valid)
    return ids, valid, jnp.broadcast_to(epochs, ids.shape)


@compiled_for_each()
def _advance(plan: Plan, state: SourceState, steps: Array) -> SourceState:
    index, epoch = arithmetic.advance(jnp, plan, state.index, state.epoch, steps)
    return SourceState(index=index, epoch=epoch, key=state.key)


@compiled_for_each()
def _step_of(plan: Plan, state: SourceState) -> Array:
    return arithmetic.step_of(jnp, plan, state.index, state.epoch)


@compiled_for_each()
def _is_exhausted(plan: Plan, state: SourceState) -> Array:
    return arithmetic.is_end(jnp, plan, *arithmetic.settle(jnp, plan, state.index, state.epoch))


@compiled_for_each(2)
def _rows(plan: Plan, axis_name: AxisName | None, state: SourceState) -> tuple[Array, Array]:
    return next_rows(plan, state, *rows_of_device(plan, axis_name))[:2]


@compiled_for_each()
def _record_keys(shape: tuple[int, ...], key: Array, epochs: Array, record_ids: Array) -> Array:
    def of_row(epoch: Array, record_id: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, epoch), record_id)

    return functools.reduce(lambda fold, _: jax.vmap(fold), shape, of_row)(epochs, record_ids)


@compiled_for_each(2)
def _locate(plan: Plan, shape: tuple[int, ...], state: SourceState, record_id: Array) -> Array:
    del shape
    return record_order.position_of(jnp, plan, order_words(plan, state.key), state.epoch, record_id)
