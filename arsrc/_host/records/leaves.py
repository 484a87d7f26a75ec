"""What the host knows of elements: arrays in a fixed order, their shapes, and what makes them of records."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc.record_batch import RecordBatch

Leaves = list[NDArray[np.generic]]

Load: TypeAlias = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Leaves]]
"""Gives those of some record ids whose records can be read, and the leaves of these."""

LeafShapes = Sequence[tuple[tuple[int, ...], np.dtype[Any]]]


class Decoder(Protocol):
    """A codec as the host is given it: which tree the arrays form is known in front of the bridge alone."""

    @property
    def codec(self) -> Any:
        """The codec, resolved: a value."""
        ...

    @property
    def shapes(self) -> LeafShapes:
        """Shape and dtype of each leaf of an element."""
        ...

    def decode(self, records: RecordBatch) -> Leaves:
        """Return one array `[len(records), ...]` per leaf, without a call into JAX.

        Raises:
            RecordError: A record does not fit the codec.
        """
        ...

    def use(self, codec: Any) -> None:
        """Decode in the way of an equal codec that differs in what changes no result.

        Raises:
            ArsrcError: It cannot be.
        """
        ...

    def like(self, codec: Any) -> Self:
        """Return a decoder that uses a codec in the sense of `use`, and shares all else; raises what that does."""
        ...

    def rest(self) -> None:
        """Let go of what it decodes with, until it does so again."""
        ...
