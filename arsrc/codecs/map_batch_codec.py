"""`MapBatch`: a user's own function from all records of a batch at once to arrays."""

import dataclasses
from typing import Any

from arsrc.codecs.base import PyTree
from arsrc.codecs.function_codec import FunctionCodec, batch_of, called, name_of
from arsrc.errors import ArsrcTypeError, ArsrcValueError, said
from arsrc.own_code import raised_at
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, repr=False)
class MapBatch(FunctionCodec):
    """Records decoded by a function of many at once, for tokenizers and what else is quicker in batches.

    How many records a call gets is none of the function's business: batches are read in pieces, and some pieces
    again to find out which record it is that the function raises for. What it gives for a record must not depend on
    the others: text is padded to one length for all batches, not to the longest of each.

    Equal functions and specs make equal codecs, as for `Map`.

    Attributes:
        fn: `fn(records: RecordBatch) -> elements`: a PyTree of NumPy arrays `[len(records), ...]`. A `RecordBatch` is a
            sequence of bytes (`list(records)`), with all of them in one array (`records.data`, `records.offsets`).
            Runs on host threads, on several at once: it must be pure, and must not call JAX. It may raise
            `RecordError(row, what)` to name the record at fault.
        spec: PyTree of one element's arrays, as for `Map`; None takes it from what `fn` gives for the first record of
            the data set alone.
        encode_fn: `encode_fn(elements) -> list of bytes`, or a `RecordBatch`, the inverse of `fn`; None: the codec does
            not encode.
        version: Text that stands for all code of `fn`, as for `Map`.

    Raises:
        ArsrcTypeError: A function is not callable or not hashable, a leaf of `spec` stands for no array, or
            `version` is no text (at construction).
        ArsrcValueError: `spec` has no leaf, or a size is negative (at construction).
    """

    def resolve(self, first_record: bytes) -> "MapBatch":
        """Return the codec with `spec` filled in, checked with the first record; host only.

        Raises:
            RecordError: `fn` raises; or there is no spec, and `fn` gives none that JAX arrays can have.
            ArsrcValueError: As `decode`.
            ArsrcTypeError: As `decode`.
        """
        records = RecordBatch.from_records([first_record])
        if self._tree is None:
            return self._with_spec_of(self.fn, records, (1,))
        elements, _ = called(self.fn, records, 0, self._tree.flatten)
        self._tree.leaves_of(elements, 1, "MapBatch.fn")
        return self

    def decode(self, records: RecordBatch) -> PyTree:
        """Return what `fn` gives for the records: the tree of `spec`, leaves `dtype[num_records, *shape]`. Host only.

        Raises:
            ArsrcValueError: `fn` gives another structure, shape or dtype than `spec` says, or not as many elements.
            ArsrcTypeError: `fn` gives a JAX array.
            Exception: What `fn` raises.
        """
        tree = self._known()
        leaves = tree.leaves_of(self.fn(records), len(records), "MapBatch.fn")
        return tree.treedef.unflatten(leaves)

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode the tree of `spec` with leaves `dtype[num_records, *shape]`, all at once. Host only.

        Raises:
            ArsrcTypeError: There is no `encode_fn`, or it gives no sequence of bytes.
            ArsrcValueError: The elements differ from `spec` where it is known, `encode_fn` gives another number of
                records, or it raises (the exception is chained).
        """
        if self.encode_fn is None:
            fix = "Give the inverse of fn as encode_fn, or write records as bytes."
            raise ArsrcTypeError("MapBatch.encode", "there is no encode_fn", fix)
        tree, leaves, length = batch_of(elements, self._tree, "MapBatch.encode")
        name = name_of(self.encode_fn)
        try:
            found: Any = self.encode_fn(tree.treedef.unflatten(leaves))
        except Exception as error:
            raise ArsrcValueError("MapBatch.encode", f"{name} raised {said(error)}", raised_at(error)) from error
        if not isinstance(found, RecordBatch):
            if not isinstance(found, (list, tuple)) or not all(isinstance(record, bytes) for record in found):
                what = f"{name} must return a list of bytes, or a RecordBatch"
                raise ArsrcTypeError("MapBatch.encode", what, returned=type(found).__name__)
            found = RecordBatch.from_records(found)
        if len(found) != length:
            what = f"{name} gave another number of records"
            raise ArsrcValueError("MapBatch.encode", what, elements=length, records=len(found))
        return found
