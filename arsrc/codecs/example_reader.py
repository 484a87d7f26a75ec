"""One feature of `tf.train.Example` records, read from a batch of which each may hold it in another way, or not."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.defaults import Default
from arsrc.codecs.element_tree import ElementTree
from arsrc.codecs.example_heads import ABSENT, BYTES, UNSET
from arsrc.codecs.example_values import CodecFeature, Feature
from arsrc.codecs.example_walk import Spans
from arsrc.codecs.example_wire import feature_names
from arsrc.codecs.field_advice import for_missing
from arsrc.errors import ArsrcValueError, RecordError
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True)
class FeatureReader:
    """A feature with its name and what stands for it where it is missing.

    Attributes:
        name: Its name, for errors.
        feature: How it is read.
        default: What stands for it; None: it must be there.
        tree: Of what it is read as; None: a codec is not resolved.
    """

    name: str
    feature: Feature
    default: Default | None
    tree: ElementTree | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        # Here, not while batches are decoded, where JAX's Python code must not run.
        try:
            tree = ElementTree(self.feature.element_spec())
        except ArsrcValueError:
            tree = None
        object.__setattr__(self, "tree", tree)

    def read(self, data: NDArray[np.uint8], spans: Spans, records: RecordBatch) -> PyTree:
        """Return what the records hold, a tree of arrays `[num_records, ...]`.

        Args:
            data: Bytes in which the feature lies.
            spans: Where, of each record.
            records: The records, whose other features errors name.

        Raises:
            RecordError: A record has not the feature, or another kind of values, or they do not fit.
        """
        num_records = len(spans.kinds)
        if num_records and np.count_nonzero(spans.kinds == spans.kinds[0]) == num_records:
            return self._of_one_kind(data, spans, slice(None), records)
        tree = self.tree or ElementTree(self.feature.element_spec())  # or else its error
        leaves = [np.empty((num_records, *shape), dtype) for shape, dtype in tree.shapes]
        for kind in np.unique(spans.kinds):
            rows = np.flatnonzero(spans.kinds == kind)
            part = self._of_one_kind(data, spans.take(rows), rows, records)
            for leaf, found in zip(leaves, tree.leaves_of(part, len(rows), "decode"), strict=True):
                leaf[rows] = found
        return tree.treedef.unflatten(leaves)

    def resolved(self, spec: Any, kind: int, value: bytes, record: bytes) -> Any:
        """Return the spec, resolved by what the first record holds if it is a codec.

        Raises:
            RecordError: The value does not fit the codec, or there is none and the codec is made of it.
        """
        if not isinstance(self.feature, CodecFeature):
            return spec
        if kind == BYTES:
            try:
                return self.feature.codec.resolve(value)
            except RecordError as error:
                raise self._naming(error, 0) from error
        try:
            self.feature.element_spec()
        except ArsrcValueError as error:
            what = f"feature {self.name!r} is missing, and nothing else says what its codec gives"
            fix = "Say it in the codec, as by Bytes(num_bytes)."
            raise RecordError(0, what, f"{fix} {for_missing(self.name, feature_names(record))}") from error
        return spec

    def _of_one_kind(
        self, data: NDArray[np.uint8], spans: Spans, rows: slice | NDArray[np.int64], records: RecordBatch
    ) -> PyTree:
        """Return what records hold that hold the same kind of values; `rows` are their numbers."""
        kind = int(spans.kinds[0])
        if kind not in (ABSENT, UNSET):
            try:
                return self.feature.decode(kind, data, spans, records)
            except RecordError as error:
                row = error.row if isinstance(rows, slice) else int(rows[error.row])
                raise self._naming(error, row) from error
        if self.default is None:
            row = 0 if isinstance(rows, slice) else int(rows[0])
            fix = for_missing(self.name, feature_names(records[row]))
            raise RecordError(row, f"feature {self.name!r} is missing", fix)
        return self.default.around(None, np.arange(0), len(spans.kinds))

    def _naming(self, error: RecordError, row: int) -> RecordError:
        return RecordError(row, f"feature {self.name!r}: {error.what}", error.fix)
