"""Names for host work in profiles."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

annotate: Callable[[str], AbstractContextManager[Any]] = nullcontext
"""Marks a span of host work; the bridge puts JAX's profiler annotation here, which this package must not import."""
