"""Integers from 2**63 on, which TFDS stores as negative ones: lists of an Example hold no others."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs import Codec, Ragged
from arsrc.codecs.base import PyTree
from arsrc.codecs.check import cast_batch, field_spec
from arsrc.record_batch import RecordBatch

_SIGNED, _UNSIGNED = np.dtype(np.int64), np.dtype(np.uint64)


@dataclasses.dataclass(frozen=True, repr=False)
class Unsigned:
    """A codec of flat dicts, some of whose arrays of int64 have the bits of uint64.

    Attributes:
        codec: Its elements are flat dicts.
        names: Of these arrays, or of `Ragged` lists of them.
    """

    codec: Codec
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Unsigned({self.codec!r}, {self.names})"

    def resolve(self, first_record: bytes) -> "Unsigned":
        """Resolve the inner codec; host only."""
        return dataclasses.replace(self, codec=self.codec.resolve(first_record))

    def element_spec(self) -> PyTree:
        """Spec of one element."""
        return self._each(self.codec.element_spec(), lambda _, spec: jax.ShapeDtypeStruct(spec.shape, _UNSIGNED))

    def decode(self, records: RecordBatch) -> PyTree:
        """Return what the inner codec decodes, the same bits unsigned. Host only."""
        return self._each(self.codec.decode(records), lambda _, array: array.view(_UNSIGNED))

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode arrays of uint64 by their bits. Host only.

        Raises:
            ArsrcTypeError, ArsrcValueError: As the inner codec, and where an integer does not fit uint64.
        """
        return self.codec.encode(self._each(elements, _signed))

    def _each(self, elements: PyTree, change: Callable[[str, Any], Any]) -> PyTree:
        """Return a dict with the arrays changed that are meant; what is no such dict is left to the inner codec."""
        if not isinstance(elements, Mapping):
            return elements
        changed = {name: _changed(name, elements[name], change) for name in self.names if name in elements}
        return {name: changed.get(name, value) for name, value in elements.items()}


def _changed(name: str, value: Any, change: Callable[[str, Any], Any]) -> Any:
    if not isinstance(value, dict):
        return change(name, value)
    return {part: change(name, leaf) if part == "values" else leaf for part, leaf in value.items()}


def stored_spec(name: str, spec: Any) -> Any:
    """Return how integers are read of which `Unsigned` makes those of a spec; None: they are no uint64."""
    held = field_spec(f"features {name!r}", spec)
    if isinstance(held, Ragged) and held.dtype == _UNSIGNED:
        pad = np.array(held.pad_value, _UNSIGNED).view(_SIGNED).item()
        return dataclasses.replace(held, dtype=_SIGNED, pad_value=pad)
    return (_SIGNED, held[1]) if isinstance(held, tuple) and held[0] == _UNSIGNED else None


def _signed(name: str, values: Any) -> NDArray[np.int64]:
    where = f"TFExample.encode feature {name!r}"
    return cast_batch(where, values, _UNSIGNED, np.shape(values)[1:]).view(np.int64)
