"""The bridge: how compiled programs call the host. There are no other callbacks in this package.

There are two paths with the same results. The portable one is made of what JAX documents: an `io_callback`, which
`custom_vmap` makes one for a whole ensemble. The fast one, `bridge_in_place.py`, leans on more of JAX; it is tried
out at the first read of a process, and left alone where it fails.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from arsrc._host.machine import profile
from arsrc._host.machine.threads import on_new_thread
from arsrc.errors import message
from arsrc.host_call import HostCall

Array = Any
Leaves = list[Any]

profile.annotate = jax.profiler.TraceAnnotation


def call_host(call: HostCall, operand: Array) -> list[Array]:
    """Return `call.results`, each with the leading axes that `operand` u32[*lead, n] has: one callback for all."""
    carried = tuple(jax.ShapeDtypeStruct(result.shape, _carrier(result.dtype)) for result in call.results)
    values = _path()(dataclasses.replace(call, results=carried), operand)
    return [
        _varying_with(value, operand).astype(result.dtype) for value, result in zip(values, call.results, strict=True)
    ]


def _carrier(dtype: Any) -> Any:
    """Return the dtype that values cross the bridge with: those of less than a byte are packed on the device."""
    if jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits < 8:
        return np.dtype(np.uint8 if jnp.issubdtype(dtype, jnp.unsignedinteger) else np.int8)
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 8:
        return np.dtype(np.float32)
    return dtype


@jax.custom_batching.custom_vmap
def portable(call: HostCall, operand: Array) -> list[Array]:
    """Return what `call` gives for `operand` u32[*lead, n], by what JAX documents alone."""
    lead = operand.shape[:-1]
    specs = call.specs(lead)
    if 0 in lead:
        return [jnp.zeros(spec.shape, spec.dtype) for spec in specs]
    # io_callback: where it stands in the compiled program, a read happens once. Unordered: states, not the order
    # of calls, decide what is read.
    called = io_callback(call, specs, operand, ordered=False)
    # Where JAX lets one device call for several, that device would become the place of the program's results.
    values: list[Array] = jax.lax.optimization_barrier(called)
    return values


@portable.def_vmap
def _of_members(_: int, are_batched: Any, call: HostCall, operand: Array) -> tuple[list[Array], list[bool]]:
    del are_batched  # the operand is the only array
    return portable(call, operand), [True] * len(call.results)


@functools.cache
def _path() -> Callable[[HostCall, Array], list[Array]]:
    """Return the path that reads take in this process."""
    try:
        from arsrc import bridge_in_place

        bridge_in_place.register(portable)
        on_new_thread(lambda: _try_out(bridge_in_place.read))  # where no trace, mesh or switch of the caller holds
    except Exception as error:  # whatever it is that this version of JAX does not do
        what = "this JAX does not take the fast path of reads, so they take the portable one"
        fix = "Batches are the same; docs/transformations.md says what JAX refuses there."
        logging.getLogger("arsrc").warning(message("read", what, fix, jax=jax.__version__, error=error))
        return portable
    return bridge_in_place.read


def _try_out(read: Callable[[HostCall, Array], list[Array]]) -> None:
    """Let `read` read for a small ensemble on a CPU; raises where it does not give what it should."""
    call = HostCall(
        lambda operand, _: ([operand + np.uint32(1)], operand), (jax.ShapeDtypeStruct((2,), np.uint32),), ("",)
    )
    operand = np.arange(6, dtype=np.uint32).reshape(3, 1, 2)
    on_cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    with jax.transfer_guard("allow"):
        members = jax.jit(jax.vmap(functools.partial(read, call)), in_shardings=on_cpu)
        np.testing.assert_array_equal(members.lower(operand).compile()(operand)[0], operand + 1)


def _varying_with(value: Array, operand: Array) -> Array:
    """Tell `shard_map` that a callback's result differs wherever its operand does.

    JAX takes it for replicated, and would leave out the sum over devices of its gradients.
    """
    axes = tuple(_varying_axes(operand) - _varying_axes(value))
    if not axes:
        return value
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(value, axes, to="varying")
    mark: Callable[..., Array] = getattr(jax.lax, "pvary")  # noqa: B009  (JAX before 0.8)
    return mark(value, axes)


def _varying_axes(value: Array) -> frozenset[str]:
    """Return the mesh axes along which JAX knows a value to differ between devices; none without `check_vma`."""
    aval: Any = jax.typeof(value)
    axes: frozenset[str] = aval.manual_axis_type.varying if hasattr(aval, "manual_axis_type") else aval.vma
    return axes
