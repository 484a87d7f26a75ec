"""Global batches on a mesh of devices, of one process or of many."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from arsrc import fetch
from arsrc._host import registry
from arsrc.any_config import AnyConfig
from arsrc.devices.shards import AxisName, hashable
from arsrc.errors import ArsrcValueError
from arsrc.programs import compiled_for_each
from arsrc.types import Batch, SourceState, check_state


def next_global_batch(
    config: AnyConfig,
    state: SourceState,
    *,
    mesh: Mesh,
    axis_name: AxisName,
    num_batches: int | None = None,
) -> tuple[SourceState, Batch]:
    """Return the next batch as global arrays, each device having read only its rows, and the state after it.

    Runs eagerly, in `jit` and in `scan`, with one process or several; every process passes equal arguments. For
    code that is outside of `shard_map`; inside, call `next_batch(..., axis_name=...)`.

    Args:
        config: The source.
        state: A state of it, replicated over the mesh.
        mesh: The mesh.
        axis_name: The mesh axis, or tuple of axes, to divide the batch over. Along the other axes it is
            replicated: the devices there share one read.
        num_batches: Static; brings so many batches with one callback a device, on a leading axis.

    Returns:
        `(state, batch)`; leaves of `batch` are `[batch_size, ...]`, or `[num_batches, batch_size, ...]`, with
        `NamedSharding(mesh, PartitionSpec(axis_name))`, or `PartitionSpec(None, axis_name)`.

    Raises:
        ArsrcValueError: `batch_size` does not divide among the devices, or the mesh has no such axis (at trace time).
    """
    registry.source(config)
    check_state("next_global_batch", state)
    names = {axis_name} if isinstance(axis_name, str) else set(axis_name)
    if not names or not names <= set(mesh.axis_names):
        raise ArsrcValueError(
            "next_global_batch", "the mesh has no such axis", axis_name=axis_name, mesh_axes=mesh.axis_names
        )
    return _next_global_batch(config._of_programs, mesh, hashable(axis_name), num_batches, state)


@compiled_for_each(4)
def _next_global_batch(
    config: AnyConfig,
    mesh: Mesh,
    axis_name: AxisName | None,
    num_batches: int | None,
    state: SourceState,
) -> tuple[SourceState, Batch]:
    def on_device(state: SourceState) -> tuple[SourceState, Batch]:
        if num_batches is None:
            return fetch.next_batch(config, state, axis_name=axis_name)
        return fetch.next_batches(config, state, num_batches, axis_name=axis_name)

    rows = PartitionSpec(axis_name) if num_batches is None else PartitionSpec(None, axis_name)
    # check_vma: the callback hides from JAX that devices along the other axes get the same rows.
    shard_map: Any = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    result: tuple[SourceState, Batch] = shard_map(
        on_device, in_specs=PartitionSpec(), out_specs=(PartitionSpec(), rows)
    )(state)
    return result
