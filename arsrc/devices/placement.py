"""Host arrays to devices: of this process, or global arrays from each process's part."""

from collections.abc import Callable, Hashable
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


def place(leaves: Any, placement: Placement, first_row: int = 0, num_rows: int | None = None) -> Any:
    """Put host arrays on devices.

    Args:
        leaves: PyTree of NumPy arrays. With `num_rows`, this process's rows of arrays that have as many.
        placement: A device, a sharding, or None for the default device.
        first_row: Number of the first row that is here.
        num_rows: Rows of the global arrays; None if every process has all of every array.
    """
    if not isinstance(placement, Sharding) or placement.is_fully_addressable:
        return jax.device_put(leaves, placement)

    def globally(leaf: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            if num_rows is None:
                return leaf[index]
            start, stop, _ = _rows(index).indices(num_rows)
            return leaf[start - first_row : stop - first_row][(slice(None), *index[1:])]

        shape = leaf.shape if num_rows is None else (num_rows, *leaf.shape[1:])
        return jax.make_array_from_callback(shape, placement, part)

    return jax.tree.map(globally, leaves)


def placer(
    placement: Placement, first_row: int, num_rows: int, kind: Hashable
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return what puts whole scalars on devices, of which no two share memory, and batches beside them as `place` does.

    What is small goes through a program, which takes a fraction of the time of `jax.device_put`.

    Args:
        placement: As for `place`, and so are the arguments behind it.
        first_row: As for `place`.
        num_rows: As for `place`.
        kind: The batches' structure, shapes and dtypes follow from it.
    """
    beside = SingleDeviceSharding(placement) if isinstance(placement, jax.Device) else replicated(placement)
    copy_scalars, copy_all = (program(_same, one, out_shardings=beside) for one in (None, kind))

    def place_both(state: Any, batch: Any) -> tuple[Any, Any]:
        is_small = sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) <= _SMALL_BYTES
        with jax.transfer_guard("allow"), jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
            if is_small and not isinstance(placement, Sharding):
                return copy_all((state, batch))
            return copy_scalars(state), place(batch, placement, first_row, num_rows)

    return place_both


def _same(kind: Hashable, leaves: Any) -> Any:
    del kind
    return leaves


def replicated(sharding: Any) -> Any:
    """Return the placement of scalars beside arrays that are placed with `sharding`."""
    return NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else sharding


def _rows(index: Any) -> slice:
    rows: slice = index[0]
    return rows
