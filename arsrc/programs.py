"""Functions compiled for one data set each, of which the least recently used are let go.

A function that is compiled with a static argument keeps a program for every value that it was ever called with. Here
each value has a compiled function of its own, and what that keeps goes with it.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

T = TypeVar("T")

_MOST_KEPT = 32


def compiled_for_each(num_static: int = 0) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator that compiles a function for each value of its first argument.

    Args:
        num_static: How many of the arguments behind the first are static.
    """

    def decorator(function: Callable[..., T]) -> Callable[..., T]:
        @functools.lru_cache(_MOST_KEPT)
        def compiled(key: Hashable) -> Callable[..., T]:
            def of_key(*arguments: Any) -> T:
                return function(key, *arguments)

            of_key.__name__ = of_key.__qualname__ = function.__name__
            return jax.jit(of_key, static_argnums=tuple(range(num_static)))

        @functools.wraps(function)
        def call(key: Hashable, *arguments: Any) -> T:
            return compiled(key)(*arguments)

        return call

    return decorator
