"""The bridge's fast path: a read is a primitive of its own, and on a CPU the host writes into the program's memory.

To JAX the primitive is what a read is, a pure function of its operand: it may stand in `jax.checkpoint` and in a
branch that some members of an ensemble take, and one whose result nobody uses is left out.

Parts of JAX stand here that its documentation does not promise. `bridge.py` tries them out before it uses them, and
does without them where they have changed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from arsrc.errors import ArsrcValueError
from arsrc.host_call import HostCall, Leaves
from arsrc.programs import compiled_for_each

Array = Any

_read_p = Primitive("arsrc_read")
_read_p.multiple_results = True


def read(call: HostCall, operand: Array) -> Leaves:
    """Return what `call` gives for `operand` u32[*lead, n]."""
    values: Leaves = _read_p.bind(operand, call=call)
    return values


def register(portable: Callable[[HostCall, Array], Leaves]) -> None:
    """Tell JAX what `read` is, given what it does where nothing faster is at hand."""

    def by_callback(operand: Array, *, call: HostCall) -> Leaves:
        return portable(call, operand)

    def eagerly(operand: Array, *, call: HostCall) -> Leaves:
        # Run only where `jit` is off, and where `jax.debug_nans` takes programs apart, this one too.
        with jax.disable_jit(False):
            return jitted(call, operand)

    jitted: Callable[..., Leaves] = compiled_for_each()(portable)
    lower_by_callback = mlir.lower_fun(by_callback, multiple_results=True)
    lower_in_place = mlir.lower_fun(_in_place, multiple_results=True)

    def lower(context: Any, operand: Any, *, call: HostCall) -> Any:
        if _each_device_calls(context) is False:
            _refuse_several_hosts()
        return lower_by_callback(context, operand, call=call)

    def lower_on_cpu(context: Any, operand: Any, *, call: HostCall) -> Any:
        if 0 in context.avals_in[0].shape[:-1] or not _each_device_calls(context):
            return lower(context, operand, call=call)
        return lower_in_place(context, operand, call=call)

    _read_p.def_abstract_eval(_abstract)
    _read_p.def_impl(eagerly)
    batching.primitive_batchers[_read_p] = _read_members
    mlir.register_lowering(_read_p, lower)
    mlir.register_lowering(_read_p, lower_on_cpu, platform="cpu")


def _abstract(operand: Any, *, call: HostCall) -> list[Any]:
    return [jax.core.ShapedArray(spec.shape, spec.dtype) for spec in call.specs(operand.shape[:-1])]


def _read_members(args: Sequence[Array], dims: Sequence[Any], *, call: HostCall) -> tuple[Leaves, list[int]]:
    (operand,), (dim,) = args, dims
    return read(call, jnp.moveaxis(operand, dim, 0)), [0] * len(call.results)


def _in_place(operand: Array, *, call: HostCall) -> Leaves:
    callback = buffer_callback(call.write, call.specs(operand.shape[:-1]), has_side_effect=True)
    values: Leaves = callback(operand)
    return values


def _each_device_calls(context: Any) -> bool | None:
    """Whether every device that runs a read calls for itself; None where JAX does not say.

    Where JAX divides a program by itself, one device calls for all.
    """
    axis_context: Any = getattr(context.module_context, "axis_context", None)
    if hasattr(axis_context, "manual_axes") and hasattr(axis_context, "mesh"):
        return set(axis_context.manual_axes) == set(axis_context.mesh.axis_names)
    return axis_context.num_devices == 1 if hasattr(axis_context, "num_devices") else None


def _refuse_several_hosts() -> None:
    if jax.process_count() > 1:
        raise ArsrcValueError(
            "read",
            "in a program of several processes, JAX would make one host read for all",
            "Use next_global_batch(config, state, mesh=mesh, axis_name=...), or next_batch(..., axis_name=...) "
            "inside jax.shard_map, or iterate(config, state, device=...). For arrays of this process alone, let "
            "the mesh be one of jax.local_devices().",
            num_processes=jax.process_count(),
        )
