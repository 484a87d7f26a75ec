"""`Map`: a user's own function from the bytes of one record to arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.stopping import is_for_process
from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_spec, is_pair
from arsrc.codecs.element_tree import ElementTree, leaf_paths, structure_difference, tree_text
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError, said
from arsrc.frozen import Terse
from arsrc.own_code import ByNames, raised_at
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, repr=False)
class Map(Terse):
    """Records decoded one by one by a function, for images, audio, JSON and formats of one's own.

    Two codecs are equal if their functions and specs are: define the functions at module level. A lambda
    that is made anew is another function, and makes `jit` trace again.

    Attributes:
        fn: `fn(record: bytes) -> element`: a PyTree of NumPy arrays or scalars. Runs on host threads, on
            several at once: it must be pure, and must not call JAX.
        spec: PyTree of one element's arrays: `jax.ShapeDtypeStruct`, `(dtype, shape)`, or a dtype. Kept as a
            PyTree of `jax.ShapeDtypeStruct`.
        encode_fn: `encode_fn(element) -> bytes`, the inverse of `fn`; None: the codec does not encode.
        version: Text that stands for all code of `fn`: decoded elements kept in files (`cacheable=True`) are found
            again by this, the name of `fn`, and the values that it holds: arguments of a `functools.partial`,
            defaults, closures, an object's fields. Those that cannot be told apart (a lock, an open file) this
            stands for as well. None: by its code, and all that this reaches.

    Raises:
        ArsrcTypeError: A function is not callable or not hashable, a leaf of `spec` stands for no array, or
            `version` is no text (at construction).
        ArsrcValueError: `spec` has no leaf, or a size is negative (at construction).
    """

    fn: Callable[[bytes], PyTree]
    # Compared through its flat form: trees of dicts cannot be hashed.
    spec: PyTree = dataclasses.field(compare=False)
    encode_fn: Callable[[PyTree], bytes] | None = None
    version: str | None = None
    _tree: ElementTree = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_function("Map.fn", self.fn)
        if self.encode_fn is not None:
            _check_function("Map.encode_fn", self.encode_fn)
        if not isinstance(self.version, str | None):
            raise ArsrcTypeError("Map.version", "must be a text", version=self.version)
        treedef: Any
        leaves, treedef = jax.tree_util.tree_flatten(self.spec, is_leaf=is_pair)
        if not leaves:
            raise ArsrcValueError("Map.spec", "has no leaf", spec=self.spec)
        paths = leaf_paths(self.spec, is_pair)
        pairs = [array_spec(f"Map.spec leaf {path}", leaf) for path, leaf in zip(paths, leaves, strict=True)]
        spec = treedef.unflatten([jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in pairs])
        object.__setattr__(self, "_tree", ElementTree(spec))
        object.__setattr__(self, "spec", spec)

    def __reduce__(self) -> tuple[Any, ...]:
        # Tree definitions with nodes of the user's own cannot be pickled, trees of them can.
        return Map, (self.fn, self.spec, self.encode_fn, self.version)

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs: not what encodes them."""
        function = self.fn if self.version is None else (ByNames(self.fn), self.version)
        return function, self._tree.paths, self._tree.shapes

    def _shown(self, field: str) -> str:
        return tree_text(self.spec) if field == "spec" else super()._shown(field)

    def resolve(self, first_record: bytes) -> "Map":
        """Decode the first record, so that what is wrong with `fn` shows at once; host only.

        Raises:
            RecordError: As `decode`.
        """
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> PyTree:
        """Spec of one element: `spec`, with `jax.ShapeDtypeStruct` leaves."""
        return self._tree.treedef.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in self._tree.shapes])

    def decode(self, records: RecordBatch) -> PyTree:
        """Return the tree of `spec` with leaves `dtype[num_records, *shape]`. Host only.

        Raises:
            RecordError: `fn` raises (the exception is chained), or gives another structure, shape or dtype
                than `spec` says.
        """
        stacked = [np.empty((len(records), *shape), dtype) for shape, dtype in self._tree.shapes]
        for row in range(len(records)):
            for column, leaf in zip(stacked, self._element(row, records[row]), strict=True):
                column[row] = leaf
        return self._tree.treedef.unflatten(stacked)

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode the tree of `spec` with leaves `dtype[num_records, *shape]`, one by one. Host only.

        Raises:
            ArsrcTypeError: There is no `encode_fn`, or it does not give bytes.
            ArsrcValueError: The elements differ from `spec`, or `encode_fn` raises (the exception is
                chained).
        """
        if self.encode_fn is None:
            fix = "Give the inverse of fn as encode_fn, or write records as bytes."
            raise ArsrcTypeError("Map.encode", "there is no encode_fn", fix)
        arrays = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(elements)]
        structure = jax.tree_util.tree_structure(elements)
        length = len(arrays[0]) if arrays and arrays[0].ndim else 0
        elements = jax.tree_util.tree_unflatten(structure, arrays)
        leaves = self._tree.leaves_of(elements, length, "Map.encode")
        return RecordBatch.from_records([self._record(row, [leaf[row] for leaf in leaves]) for row in range(length)])

    def _element(self, row: int, record: bytes) -> list[NDArray[Any]]:
        """Return the leaves that `fn` gives for one record, checked against the spec."""
        try:
            element = self.fn(record)
            leaves = self._tree.flatten(element)
        except BaseException as error:
            if is_for_process(error):
                raise
            what = f"{_name(self.fn)} raised {said(error)}"
            raise RecordError(row, what, raised_at(error)) from error
        if leaves is None:
            raise RecordError(row, *structure_difference(self.spec, element))
        for i, (shape, dtype) in enumerate(self._tree.shapes):
            leaf = leaves[i]
            if not isinstance(leaf, (np.ndarray, np.generic)):
                if isinstance(leaf, jax.Array):
                    raise RecordError(row, *self._tree.jax_array(i))
                leaf = leaves[i] = np.asarray(leaf)
            if leaf.dtype != dtype or leaf.shape != shape:
                raise RecordError(row, *self._tree.leaf_difference(i, leaf))
        return leaves

    def _record(self, row: int, leaves: list[Any]) -> bytes:
        """Return the bytes that `encode_fn` gives for one element."""
        assert self.encode_fn is not None
        try:
            record: Any = self.encode_fn(self._tree.treedef.unflatten(leaves))
        except Exception as error:
            what = f"element {row}: {_name(self.encode_fn)} raised {said(error)}"
            raise ArsrcValueError("Map.encode", what) from error
        if not isinstance(record, bytes):
            what = f"element {row}: {_name(self.encode_fn)} must return bytes"
            raise ArsrcTypeError("Map.encode", what, returned=type(record).__name__)
        return record


def _check_function(where: str, fn: Any) -> None:
    if not callable(fn):
        raise ArsrcTypeError(where, "must be callable", fn=fn)
    try:
        hash(fn)
    except TypeError as error:
        fix = "Codecs are part of what jit caches by: use a function, or a frozen dataclass with __call__."
        raise ArsrcTypeError(where, "must be hashable", fix, fn=fn) from error


def _name(fn: Any) -> str:
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))
