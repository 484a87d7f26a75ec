"""The bridge: how compiled programs call the host. There are no other callbacks in this package.

There are two paths with the same results. The portable one is made of what JAX documents: an `io_callback`, which
`custom_vmap` makes one for a whole ensemble. The fast one, `bridge_in_place.py`, leans on more of JAX; it is tried
out at the first read of a process, and left alone where it fails.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from arsrc._host.machine import profile
from arsrc._host.machine.threads import on_new_thread
from arsrc.errors import ArsrcValueError, message

Array = Any
Leaves = list[Any]

profile.annotate = jax.profiler.TraceAnnotation


@jax.tree_util.register_static  # an argument of traced functions that is no array
@dataclasses.dataclass(frozen=True)
class HostCall:
    """A call of the host.

    Calls of equal configs are equal, and with them the programs in which they stand.

    Attributes:
        read: Gives for `operand u32[num_members, n]` one array `[num_members, *shape]` for each of `results`. The
            second argument is None or such arrays to write into, which it may do or not.
        results: What one member gets, as the device takes it.
    """

    read: Callable[[np.ndarray, Leaves | None], Leaves]
    results: tuple[jax.ShapeDtypeStruct, ...]

    def specs(self, lead: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
        """Return what members with these leading axes get."""
        return [jax.ShapeDtypeStruct(lead + result.shape, result.dtype) for result in self.results]

    def __call__(self, operand: Any) -> Leaves:
        """Return the results for `operand` u32[*lead, n]."""
        operand = np.asarray(operand)
        lead = operand.shape[:-1]
        leaves = self.read(_merged(operand, len(lead)), None)
        return [
            narrowed(leaf, result.dtype).reshape(lead + result.shape)
            for leaf, result in zip(leaves, self.results, strict=True)
        ]

    def write(self, _: Any, buffers: Sequence[Any], operand: Any) -> None:
        """Write the results for `operand` u32[*lead, n] into the memory of the running program."""
        operand = np.asarray(operand)
        num_lead = operand.ndim - 1
        outs = [_merged(np.asarray(buffer), num_lead) for buffer in buffers]
        for out, leaf in zip(outs, self.read(_merged(operand, num_lead), outs), strict=True):
            if leaf is not out:
                out[...] = narrowed(leaf, out.dtype).reshape(out.shape)


def _merged(array: np.ndarray, num_lead: int) -> np.ndarray:
    """Return an array [*lead, ...] as one of [num_members, ...]."""
    if num_lead == 1:
        return array
    return array.reshape(math.prod(array.shape[:num_lead]), *array.shape[num_lead:])


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
        fix = "Batches are the same; the README says what JAX refuses there."
        logging.getLogger("arsrc").warning(message("read", what, fix, jax=jax.__version__, error=error))
        return portable
    return bridge_in_place.read


def _try_out(read: Callable[[HostCall, Array], list[Array]]) -> None:
    """Let `read` read for a small ensemble on a CPU; raises where it does not give what it should."""
    call = HostCall(lambda operand, _: [operand + np.uint32(1)], (jax.ShapeDtypeStruct((2,), np.uint32),))
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
