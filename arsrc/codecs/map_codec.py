"""`Map`: a user's own function from the bytes of one record to arrays."""

import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import whole_number
from arsrc.codecs.element_tree import ElementTree, structure_difference
from arsrc.codecs.function_codec import FunctionCodec, batch_of, called, name_of
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError, said
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, repr=False)
class Map(FunctionCodec):
    """Records decoded one by one by a function, for images, audio, JSON and formats of one's own.

    Two codecs are equal if their functions and specs are: define the functions at module level. A lambda
    that is made anew is another function, and makes `jit` trace again.

    Attributes:
        fn: `fn(record: bytes) -> element`: a PyTree of NumPy arrays or scalars. Runs on host threads, on
            several at once: it must be pure, and must not call JAX.
        spec: PyTree of one element's arrays: `jax.ShapeDtypeStruct`, `(dtype, shape)`, or a dtype. Kept as a
            PyTree of `jax.ShapeDtypeStruct`. None takes it from what `fn` gives for the first record of the data set:
            as NumPy sees it, so that Python's ints are int64 and its floats float64 (which JAX, unless
            `jax_enable_x64` is set, makes int32 and float32 of in batches, as everywhere).
        encode_fn: `encode_fn(element) -> bytes`, the inverse of `fn`; None: the codec does not encode.
        version: Text that stands for all code of `fn`: decoded elements kept in files (`cacheable=True`) are found
            again by this, the name of `fn`, and the values that it holds: arguments of a `functools.partial`,
            defaults, closures, an object's fields. Those that cannot be told apart (a lock, an open file) this
            stands for as well. None: by its code, and all that this reaches.
        num_processes: Worker processes that decode the batches of a source, for an `fn` that holds the interpreter
            lock and takes some 10 microseconds a record or more; 0 decodes on the threads that read. Changes speed
            alone: codecs that differ in it are equal, and of equal configs the one given last to `init` or `iterate`
            counts. They start when they are needed, the first one as a source is opened, for its first record. They
            import the module of `fn` (or the script that defines it, of which what begins to read must stand under
            `if __name__ == "__main__"`), and end when the source is closed. `fn` must be picklable. A process that
            ends over a record, as by a crash, is an error of this record. Only the codec of a config has them: inside
            of another codec it must be 0.

    Raises:
        ArsrcTypeError: A function is not callable or not hashable, a leaf of `spec` stands for no array,
            `version` is no text, or `num_processes` no integer (at construction).
        ArsrcValueError: `spec` has no leaf, or a size or `num_processes` is negative (at construction).
    """

    num_processes: int = dataclasses.field(default=0, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        num_processes = whole_number("Map.num_processes", "num_processes", self.num_processes, 0)
        object.__setattr__(self, "num_processes", num_processes)

    def __reduce__(self) -> tuple[Any, ...]:
        kind, arguments = super().__reduce__()
        return kind, (*arguments, self.num_processes)

    def resolve(self, first_record: bytes) -> "Map":
        """Return the codec with `spec` filled in, checked with the first record; host only.

        Raises:
            RecordError: As `decode`; or there is no spec, and `fn` gives none that JAX arrays can have.
        """
        resolved = self._with_spec_of(self.fn, first_record, ()) if self.spec is None else self
        resolved.decode(RecordBatch.from_records([first_record]))
        return resolved

    def decode(self, records: RecordBatch) -> PyTree:
        """Return the tree of `spec` with leaves `dtype[num_records, *shape]`. Host only.

        Raises:
            RecordError: `fn` raises (the exception is chained), or gives another structure, shape or dtype
                than `spec` says.
        """
        tree = self._known()
        stacked = [np.empty((len(records), *shape), dtype) for shape, dtype in tree.shapes]
        for row, record in enumerate(records):
            for column, leaf in zip(stacked, self._element(tree, row, record), strict=True):
                column[row] = leaf
        return tree.treedef.unflatten(stacked)

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode the tree of `spec` with leaves `dtype[num_records, *shape]`, one by one. Host only.

        Raises:
            ArsrcTypeError: There is no `encode_fn`, or it does not give bytes.
            ArsrcValueError: The elements differ from `spec` where it is known, or `encode_fn` raises (the exception is
                chained).
        """
        if self.encode_fn is None:
            fix = "Give the inverse of fn as encode_fn, or write records as bytes."
            raise ArsrcTypeError("Map.encode", "there is no encode_fn", fix)
        tree, leaves, length = batch_of(elements, self._tree, "Map.encode")
        return RecordBatch.from_records(
            [self._record(row, tree, [leaf[row] for leaf in leaves]) for row in range(length)]
        )

    def _element(self, tree: ElementTree, row: int, record: bytes) -> list[NDArray[Any]]:
        """Return the leaves that `fn` gives for one record, checked against the spec."""
        element, leaves = called(self.fn, record, row, tree.flatten)
        if leaves is None:
            raise RecordError(row, *structure_difference(tree.spec, element))
        for i, (shape, dtype) in enumerate(tree.shapes):
            leaf = leaves[i]
            if not isinstance(leaf, (np.ndarray, np.generic)):
                if isinstance(leaf, jax.Array):
                    raise RecordError(row, *tree.jax_array(i))
                leaf = leaves[i] = np.asarray(leaf)
            if leaf.dtype != dtype or leaf.shape != shape:
                raise RecordError(row, *tree.leaf_difference(i, leaf))
        return leaves

    def _record(self, row: int, tree: ElementTree, leaves: list[Any]) -> bytes:
        """Return the bytes that `encode_fn` gives for one element."""
        assert self.encode_fn is not None
        try:
            record: Any = self.encode_fn(tree.treedef.unflatten(leaves))
        except Exception as error:
            what = f"element {row}: {name_of(self.encode_fn)} raised {said(error)}"
            raise ArsrcValueError("Map.encode", what) from error
        if not isinstance(record, bytes):
            what = f"element {row}: {name_of(self.encode_fn)} must return bytes"
            raise ArsrcTypeError("Map.encode", what, returned=type(record).__name__)
        return record
