"""Which rows of a global batch a device gets, inside `jax.shard_map`."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from arsrc.errors import ArsrcValueError
from arsrc.order.plan import Plan

AxisName = str | tuple[str, ...]


def rows_of_device(plan: Plan, axis_name: AxisName | None) -> tuple[int | jax.Array, int]:
    """Return the first row of the batch that this device reads, and how many."""
    if axis_name is None:
        return 0, plan.batch_size
    names = {axis_name} if isinstance(axis_name, str) else set(axis_name)
    if not names <= set(jax.sharding.get_abstract_mesh().manual_axes):
        raise ArsrcValueError(
            "axis_name",
            "is no axis of a mesh that jax.shard_map divides here",
            "Call it inside jax.shard_map, or give scan_* the mesh too, or use next_global_batch; vmap over states "
            "needs no axis_name.",
            axis_name=axis_name,
        )
    num_shards = jax.lax.axis_size(axis_name)
    if plan.batch_size % num_shards:
        raise ArsrcValueError(
            "batch_size",
            f"the batch does not divide among {num_shards} devices",
            f"Choose a batch_size that is a multiple of {num_shards}.",
            batch_size=plan.batch_size,
            axis_name=axis_name,
        )
    num_rows = plan.batch_size // num_shards
    return jax.lax.axis_index(axis_name).astype(jnp.uint32) * np.uint32(num_rows), num_rows


def num_askers(axis_name: AxisName | None) -> int:
    """Return how many devices of this process ask for the same rows, at most: those along the other axes of the mesh.

    Some of these may be other processes': which ones cannot be told while a program is traced. The host waits for so
    many until it sees that fewer come.
    """
    mesh = jax.sharding.get_abstract_mesh()
    divided = (axis_name,) if isinstance(axis_name, str) else axis_name or ()
    others = math.prod(mesh.shape[name] for name in mesh.manual_axes if name not in divided)
    return min(others, jax.local_device_count())


def hashable(axis_name: AxisName | None) -> AxisName | None:
    """Return `axis_name` with a tuple in place of a list."""
    return axis_name if axis_name is None or isinstance(axis_name, str) else tuple(axis_name)
