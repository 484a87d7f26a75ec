"""Dicts inside of dicts, as TFDS gives them, of a codec whose dict is flat."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arsrc.codecs.base import Codec, PyTree
from arsrc.errors import ArsrcTypeError
from arsrc.record_batch import RecordBatch
from arsrc.tfds.features import Path


@dataclasses.dataclass(frozen=True, repr=False)
class Nested:
    """A codec of flat dicts whose entries are put where they stand in the examples of TFDS.

    Attributes:
        codec: Its elements are flat dicts.
        paths: Where each entry stands, by the names from the outermost dict inwards; the entries' names are these,
            joined by "/".
    """

    codec: Codec
    paths: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"Nested({self.codec!r})"

    def resolve(self, first_record: bytes) -> "Nested":
        """Resolve the inner codec; host only."""
        return dataclasses.replace(self, codec=self.codec.resolve(first_record))

    def element_spec(self) -> PyTree:
        """Spec of one element."""
        return self._nested(self.codec.element_spec())

    def decode(self, records: RecordBatch) -> PyTree:
        """Return what the inner codec decodes, in nested dicts. Host only."""
        return self._nested(self.codec.decode(records))

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode nested dicts of arrays. Host only.

        Raises:
            ArsrcTypeError: What should be a dict is none.
        """
        flat: dict[str, Any] = {}
        for path in self.paths:
            inner = elements
            for name in path:
                if not isinstance(inner, Mapping) or name not in inner:
                    what = f"elements must be nested dicts with {'/'.join(path)!r}"
                    raise ArsrcTypeError("Nested.encode", what, elements=type(inner).__name__)
                inner = inner[name]
            flat["/".join(path)] = inner
        return self.codec.encode(flat)

    def _nested(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for path in self.paths:
            inner = tree
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = flat["/".join(path)]
        return tree
