"""Host arrays to devices: of this process, or global arrays from each process's part."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.programs import program

Placement: TypeAlias = jax.Device | Sharding | None
"""Where arrays go, as `jax.device_put` takes it; None is JAX's default device."""

_SMALL_BYTES = 2**20


def check_placement(where: str, device: Any) -> None:
    """Raise `ArsrcTypeError` unless arrays can be put there."""
    if not isinstance(device, Placement):
        fix = "Give jax.devices()[0], say, or NamedSharding(mesh, PartitionSpec(...))."
        raise ArsrcTypeError(where, "device is no device and no sharding", fix, device=device)


def rows_of_process(device: Placement, batch_size: int) -> range:
    """Return the rows of a batch that this process holds there, and any between them."""
    if not isinstance(device, Sharding):
        return range(batch_size)
    try:
        device.shard_shape((batch_size,))
    except (ValueError, IndexError) as error:
        raise ArsrcValueError(
            "iterate",
            "the batch does not divide among the devices",
            "Choose a batch_size that is a multiple of their number, and a spec like PartitionSpec('data').",
            batch_size=batch_size,
            device=device,
        ) from error
    slices = [
        _rows(index).indices(batch_size) for index in device.addressable_devices_indices_map((batch_size,)).values()
    ]
    return range(min(start for start, _, _ in slices), max(stop for _, stop, _ in slices))


def stacked(where: str, device: Placement) -> Placement:
    """Return where arrays [num_batches, batch_size, ...] go whose batches go there."""
    if isinstance(device, NamedSharding):
        return NamedSharding(device.mesh, PartitionSpec(None, *device.spec), memory_kind=device.memory_kind)
    if isinstance(device, Sharding) and not device.is_fully_replicated:
        what, fix = "with num_batches a sharding must be a NamedSharding", "Make one of a mesh and a PartitionSpec."
        raise ArsrcTypeError(where, what, fix, device=device)
    return device


def place(leaves: Any, placement: Placement, first_row: int = 0, num_rows: int | None = None, row_axis: int = 0) -> Any:
    """Put host arrays on devices.

    Args:
        leaves: PyTree of NumPy arrays. With `num_rows`, this process's rows of arrays that have as many.
        placement: A device, a sharding, or None for the default device.
        first_row: Number of the first row that is here.
        num_rows: Rows of the global arrays; None if every process has all of every array.
        row_axis: The axis of rows.
    """
    if not isinstance(placement, Sharding) or placement.is_fully_addressable:
        return jax.device_put(leaves, placement)

    def globally(leaf: np.ndarray) -> jax.Array:
        shape = list(leaf.shape)
        if num_rows is not None:
            shape[row_axis] = num_rows

        def part(index: Any) -> np.ndarray:
            here = list(index)
            if num_rows is not None:
                start, stop, _ = here[row_axis].indices(num_rows)
                here[row_axis] = slice(start - first_row, stop - first_row)
            return leaf[tuple(here)]

        return jax.make_array_from_callback(tuple(shape), placement, part)

    return jax.tree.map(globally, leaves)


def placer(
    placement: Placement, first_row: int, num_rows: int, row_axis: int, key: Any, kind: Hashable
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return what puts `((index, epoch), batch)` on devices as `((index, epoch, key), batch)`.

    No two scalars share memory, nor does a key with another; batches are placed as `place` does.

    Args:
        placement: As for `place`, and so are the three arguments behind it.
        first_row: As for `place`.
        num_rows: As for `place`.
        row_axis: As for `place`.
        key: Of all states.
        kind: The batches' structure and dtypes follow from it.
    """
    words, impl = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)
    beside_it = beside(placement)
    key = jax.random.wrap_key_data(place(words, beside_it), impl=impl)
    copy_scalars, copy_all = (program(_same, one, out_shardings=beside_it) for one in (None, kind))
    is_here = not isinstance(placement, Sharding) or placement.is_fully_addressable

    def by_programs(scalars: Any, batch: Any) -> tuple[Any, Any]:
        """What is small goes through a program, which takes a fraction of the time of `jax.device_put`."""
        if isinstance(placement, Sharding):
            return copy_scalars((*scalars, key)), place(batch, placement, first_row, num_rows, row_axis)
        leaves, treedef = jax.tree.flatten(batch)
        large = [leaf if leaf.nbytes > _SMALL_BYTES else None for leaf in leaves]
        small = [leaf if other is None else None for leaf, other in zip(leaves, large, strict=True)]
        state, small = copy_all(((*scalars, key), small))
        if all(leaf is None for leaf in large):
            return state, jax.tree.unflatten(treedef, small)
        large = place(large, placement)
        leaves = [other if leaf is None else leaf for leaf, other in zip(small, large, strict=True)]
        return state, jax.tree.unflatten(treedef, leaves)

    def by_transfers(scalars: Any, batch: Any) -> tuple[Any, Any]:
        index, epoch, key_words = (place(np.array(one), beside_it) for one in (*scalars, words))
        key = jax.random.wrap_key_data(key_words, impl=impl)
        return (index, epoch, key), place(batch, placement, first_row, num_rows, row_axis)

    def place_both(scalars: Any, batch: Any) -> tuple[Any, Any]:
        # Programs are refused where a mesh of other devices is set; those of several processes must all be dispatched
        # in one order, and each process would put this one where it suits its own clock.
        is_meshed = not jax.sharding.get_abstract_mesh().empty
        put = by_programs if is_here and not is_meshed else by_transfers
        with nullcontext() if _is_plain() else _plainly():
            return put(scalars, batch)

    return place_both


def beside(placement: Placement) -> Sharding | None:
    """Return the placement of scalars beside arrays that are placed so: in the memory of the same devices."""
    if isinstance(placement, jax.Device):
        return SingleDeviceSharding(placement)
    if isinstance(placement, NamedSharding):
        return NamedSharding(placement.mesh, PartitionSpec())
    return SingleDeviceSharding(*placement.device_set) if isinstance(placement, SingleDeviceSharding) else placement


def _is_plain() -> bool:
    """Whether JAX is as it is by default, which takes a fraction of the time of making it so."""
    config: Any = jax.config
    is_switched = config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs
    return not is_switched and config.jax_transfer_guard_host_to_device in (None, "allow")


@contextmanager
def _plainly() -> Iterator[None]:
    """Let JAX transfer and compile as it does by default, whatever the caller has switched on for steps."""
    with jax.transfer_guard("allow"), jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        yield


def _same(kind: Hashable, leaves: Any) -> Any:
    del kind
    return leaves


def _rows(index: Any) -> slice:
    rows: slice = index[0]
    return rows
