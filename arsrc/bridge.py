"""The bridge: how compiled programs call the host. There are no other callbacks in this package.

A read is a primitive of its own. To JAX it is what it is, a pure function of its operand: it may stand in
`jax.checkpoint`, and a read whose result nobody uses is left out. In the compiled program it becomes a callback.
That is an `io_callback`, whose results are copied to the device; on a CPU, where a device has a program to itself, the
program hands over the memory of the results, to be written in place.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from arsrc._host.machine import profile
from arsrc.errors import ArsrcValueError, message

Array = Any
Leaves = list[Any]

profile.annotate = jax.profiler.TraceAnnotation


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
        leaves = self._read(operand, lead, None)
        return [
            narrowed(leaf, result.dtype).reshape(lead + result.shape)
            for leaf, result in zip(leaves, self.results, strict=True)
        ]

    def write(self, _: Any, buffers: Sequence[Any], operand: Any) -> None:
        """Write the results for `operand` u32[*lead, n] into the memory of the running program."""
        operand = np.asarray(operand)
        lead = operand.shape[:-1]
        outs = [np.asarray(buffer) for buffer in buffers]
        flat = outs if len(lead) == 1 else [out.reshape(math.prod(lead), *out.shape[len(lead) :]) for out in outs]
        for out, leaf in zip(flat, self._read(operand, lead, flat), strict=True):
            if leaf is not out:
                out[...] = narrowed(leaf, out.dtype).reshape(out.shape)

    def _read(self, operand: np.ndarray, lead: tuple[int, ...], outs: Leaves | None) -> Leaves:
        return self.read(operand.reshape(math.prod(lead), operand.shape[-1]), outs)


def call_host(call: HostCall, operand: Array) -> list[Array]:
    """Return `call.results`, each with the leading axes that `operand` u32[*lead, n] has: one callback for all."""
    carried = tuple(jax.ShapeDtypeStruct(result.shape, _carrier(result.dtype)) for result in call.results)
    values = _read(dataclasses.replace(call, results=carried), operand)
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


def _read(call: HostCall, operand: Array) -> list[Array]:
    lead = operand.shape[:-1]
    if 0 in lead:
        return [jnp.zeros(spec.shape, spec.dtype) for spec in call.specs(lead)]
    values: list[Array] = _read_p.bind(operand, call=call)
    return values


_read_p = Primitive("arsrc_read")
_read_p.multiple_results = True


def _abstract(operand: Any, *, call: HostCall) -> list[Any]:
    return [jax.core.ShapedArray(spec.shape, spec.dtype) for spec in call.specs(operand.shape[:-1])]


def _eager(operand: Array, *, call: HostCall) -> list[Array]:
    with jax.disable_jit(False):  # it may be on here, and would lead back to this function
        values: list[Array] = _compiled(call, operand)
    return values


_compiled = jax.jit(_read, static_argnums=0)
_read_p.def_abstract_eval(_abstract)
_read_p.def_impl(_eager)


def _read_members(args: Sequence[Array], dims: Sequence[Any], *, call: HostCall) -> tuple[list[Array], list[int]]:
    (operand,), (dim,) = args, dims
    values = _read(call, jnp.moveaxis(operand, dim, 0))
    return values, [0] * len(values)


batching.primitive_batchers[_read_p] = _read_members


def _by_callback(operand: Array, *, call: HostCall) -> list[Array]:
    # io_callback: where it stands in the compiled program, a read happens once. Unordered: states, not the order
    # of calls, decide what is read.
    called = io_callback(call, call.specs(operand.shape[:-1]), operand, ordered=False)
    # Where JAX lets one device call for several, that device would become the place of the program's results.
    values: list[Array] = jax.lax.optimization_barrier(called)
    return values


def _in_place(operand: Array, *, call: HostCall) -> list[Array]:
    callback = buffer_callback(call.write, call.specs(operand.shape[:-1]), has_side_effect=True)
    values: list[Array] = callback(operand)
    return values


_lower_by_callback = mlir.lower_fun(_by_callback, multiple_results=True)
_lower_in_place = mlir.lower_fun(_in_place, multiple_results=True)


def _lower(context: Any, operand: Any, *, call: HostCall) -> Any:
    if not _is_for_each_device(context):
        _refuse_several_hosts()
    return _lower_by_callback(context, operand, call=call)


def _lower_on_cpu(context: Any, operand: Any, *, call: HostCall) -> Any:
    if not _is_for_each_device(context):
        return _lower(context, operand, call=call)
    return _lower_in_place(context, operand, call=call)


mlir.register_lowering(_read_p, _lower)
mlir.register_lowering(_read_p, _lower_on_cpu, platform="cpu")


def _is_for_each_device(context: Any) -> bool:
    """Whether every device that runs a read calls for itself; where JAX divides a program by itself, one calls."""
    axis_context = context.module_context.axis_context
    manual = getattr(axis_context, "manual_axes", None)
    if manual is not None:
        return set(manual) == set(axis_context.mesh.axis_names)
    return getattr(axis_context, "num_devices", 0) == 1


def _refuse_several_hosts() -> None:
    if jax.process_count() > 1:
        raise ArsrcValueError(
            message(
                "read",
                "in a program of several processes, JAX would make one host read for all",
                "Use next_global_batch(config, state, mesh=mesh, axis_name=...), or next_batch(..., axis_name=...) "
                "inside jax.shard_map, or iterate(config, state, sharding=...). For arrays of this process alone, let "
                "the mesh be one of jax.local_devices().",
                num_processes=jax.process_count(),
            )
        )


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
