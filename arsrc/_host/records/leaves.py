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


class TokenLeaves(Protocol):
    """Where the tokens of decoded documents stand, or of records that are tokens as they stand."""

    @property
    def values(self) -> int:
        """Number of the leaf, integer[max_length]."""
        ...

    @property
    def length(self) -> int | None:
        """Number of the leaf that says how many of them a document has; None: it has all of them."""
        ...

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        """Dtype of the tokens in the bytes of a record, where these are its tokens; else None."""
        ...

    def lengths(self, num_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many tokens records of so many bytes have.

        Raises:
            RecordError: A record is no whole number of tokens, or has too many.
        """
        ...


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

    def tokens(self) -> TokenLeaves:
        """Return where the tokens of documents stand.

        Raises:
            ArsrcValueError: There is no one array of them.
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
