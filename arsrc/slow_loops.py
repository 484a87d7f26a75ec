"""Loops that XLA runs slowly on CPUs: those with convolutions that are not as its fast kernels take them.

Its pass `ConvCanonicalization` turns convolutions into the layout of these kernels in a program's outermost
computation, and in no body of a loop or branch. Gradients of convolutions never have that layout by themselves.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax

from arsrc.errors import message

T = TypeVar("T")


def run(loop: Callable[..., T], *arguments: Any) -> T:
    """Return `loop(*arguments)`; on a CPU, log once that it is slow where it is, if it is compiled at all."""
    is_compiled = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
    if not is_compiled or jax.default_backend() != "cpu":
        return loop(*arguments)
    compiled = jax.jit(loop)
    if has_slow_convolution(compiled.trace(*arguments).jaxpr.eqns):  # the call then takes the same trace
        _warn()
    return compiled(*arguments)


def has_slow_convolution(equations: Iterable[Any], is_inside: bool = False) -> bool:
    """Whether a loop or branch among `equations` holds a convolution in another layout than NHWC and HWIO."""
    for equation in equations:
        name, params = equation.primitive.name, equation.params
        if is_inside and name == "conv_general_dilated" and not _is_canonical(*params["dimension_numbers"]):
            return True
        is_apart = name in {"while", "cond"} or (name == "scan" and params["unroll"] < params["length"])
        inner = jax.tree.leaves(list(params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
        if any(has_slow_convolution(one.eqns, is_inside or is_apart) for one in inner if hasattr(one, "eqns")):
            return True
    return False


def _is_canonical(lhs: tuple[int, ...], rhs: tuple[int, ...], out: tuple[int, ...]) -> bool:
    *spatial, channels = range(1, len(lhs))
    return lhs == out == (0, channels, *spatial) and rhs == (channels, channels - 1, *range(channels - 1))


@functools.cache
def _warn() -> None:
    what = "on CPUs, XLA runs gradients of convolutions many times slower in a loop than outside of it"
    fix = "Use iterate and a compiled step, or unroll=True where steps are few; see docs/transformations.md."
    logging.getLogger("arsrc").warning(message("scan_steps", what, fix))
