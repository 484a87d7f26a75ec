"""The whole decoded data set as device arrays, from which batches are gathered without a callback."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from arsrc._host import registry
from arsrc._host.machine import memory
from arsrc._host.open_source import Schema
from arsrc.any_config import AnyConfig
from arsrc.devices.placement import Placement, check_placement, place
from arsrc.errors import ArsrcValueError, said, sides
from arsrc.order.plan import Plan

Array = jax.Array
Table = Any


def load_resident(config: AnyConfig, *, device: Placement = None) -> Table:
    """Read and decode every record into device arrays, once; host.

    Hand the table to `next_batch(..., resident=table)`: the same batches bit for bit, gathered on the device,
    with no callback in the program. Pass it to jitted functions as an argument; a table that is closed over
    becomes a constant of the program.

    Args:
        config: The source.
        device: Device or sharding of the table; defaults to JAX's default device. On a mesh,
            `NamedSharding(mesh, PartitionSpec())` gives every device the whole table, which is what
            `next_batch(..., axis_name=..., resident=table)` inside `shard_map` takes.

    Returns:
        The tree of `element_spec` with leaves `[num_records, ...]`, record `i` in row `i`. Rows of excluded records
        are zero: load again for a config that excludes fewer. With `on_bad_record="mask"`, a pair: this tree, and
        bool[num_records], which records could be read.

    Raises:
        ArsrcValueError: The decoded data set is larger than the memory that is free; the text has both sizes.
            Or a record does not fit the codec.
        ArsrcReadError: A record cannot be read.
        ArsrcTypeError: `device` is no device and no sharding.
    """
    check_placement("load_resident", device)
    host = registry.source(config, strict=True)
    rows = host.plan.num_records
    _check_fits([jax.ShapeDtypeStruct((rows, *shape), dtype) for shape, dtype in host.elements.shapes], device)
    treedef = jax.tree.structure(table_spec(host.schema))
    try:
        table = jax.tree.unflatten(treedef, host.all_elements("load_resident"))
        return jax.block_until_ready(place(table, device))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        num_bytes = rows * host.elements.num_bytes
        raise _too_large(f"{num_bytes} bytes, and memory ran out ({said(error)})") from error


def table_spec(schema: Schema) -> Any:
    """Return the specs of a row of a table: of an element, and where bad records are masked, of whether it is good."""
    spec = schema.codec.element_spec()
    return (spec, jax.ShapeDtypeStruct((), bool)) if schema.config._masks else spec


def gather(plan: Plan, table: Table, record_ids: Array, mask: Array, masks: bool) -> tuple[Any, Array | None]:
    """Return the rows of `table` with these ids, zero where `mask` is False; and with `masks` which hold a record."""
    bounded = jnp.minimum(record_ids, np.uint32(plan.num_records - 1))

    def rows(leaf: Array) -> Array:
        found = leaf.at[bounded].get(mode="promise_in_bounds")
        if plan.remainder == "drop" and plan.num_epochs < 0 and not plan.exclude:
            return found  # every row holds a record
        return jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - 1)), found, jnp.zeros((), leaf.dtype))

    found = jax.tree.map(rows, table)
    return found if masks else (found, None)


def check_table(spec: Any, plan: Plan, table: Table) -> None:
    """Raise `ArsrcValueError` unless `table` has the structure, shapes and dtypes that `load_resident` gives."""
    wanted = jax.tree.map(
        lambda leaf: f"{jax.dtypes.canonicalize_dtype(leaf.dtype).name}{[plan.num_records, *leaf.shape]}",
        spec,
    )
    found = jax.tree.map(_leaf_text, table)
    if wanted != found:
        raise ArsrcValueError(
            "next_batch",
            "the resident table is not this data set",
            "Load it with load_resident(config):" + sides(config=str(wanted), table=str(found)),
        )


def _leaf_text(leaf: Any) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__


def _check_fits(leaves: list[jax.ShapeDtypeStruct], device: Placement) -> None:
    """Refuse a table that does not fit into memory: whole on this host, which reads it, and in parts on devices."""
    sharding = device if isinstance(device, Sharding) else SingleDeviceSharding(device or jax.devices()[0])
    places = [("this host", sum(_num_bytes(leaf, leaf.shape) for leaf in leaves), memory.free_bytes())]
    on_device = sum(_num_bytes(leaf, sharding.shard_shape(leaf.shape)) for leaf in leaves)
    places += [(str(one), on_device, _free_bytes(one)) for one in sharding.addressable_devices]
    for where, needed, free in places:
        if needed > free:
            raise _too_large(f"{needed} bytes on {where}, and {free} are free there")


def _too_large(needs: str) -> ArsrcValueError:
    fix = "Stream it (leave resident= out), or choose fewer records."
    return ArsrcValueError("load_resident", f"the decoded data set needs {needs}", fix)


def _num_bytes(leaf: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * leaf.dtype.itemsize


def _free_bytes(device: jax.Device) -> int:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return memory.free_bytes()
