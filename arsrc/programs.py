"""Functions compiled for one data set each, of which the least recently used are let go.

A function that is compiled with static arguments, or called with arrays of many shapes, keeps a program of megabytes
for each that it was ever called with. Here each has a compiled function of its own, and what that keeps goes with it.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

T = TypeVar("T")

_MOST_KEPT = 128  # of all functions together: some 3 MB and 24 memory maps each, of the 65,530 of a process


def compiled_for_each(num_static: int = 1) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator that compiles a function for each value of its first arguments.

    Args:
        num_static: How many. What shapes the others have must follow from these.
    """

    def decorator(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def call(*arguments: Any) -> T:
            compiled: Callable[..., T] = program(function, *arguments[:num_static])
            return compiled(*arguments[num_static:])

        return call

    return decorator


@functools.lru_cache(_MOST_KEPT)
def program(function: Callable[..., Any], *static: Hashable, **options: Any) -> Callable[..., Any]:
    """Return `function(*static, ...)`, compiled; `options` are those of `jax.jit`."""

    def of_static(*arguments: Any) -> Any:
        return function(*static, *arguments)

    of_static.__name__ = of_static.__qualname__ = function.__name__
    return jax.jit(of_static, **options)
