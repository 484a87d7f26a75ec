"""What stands for fields that a record has not."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.check import cast_batch
from arsrc.codecs.element_tree import ElementTree, array_text, both_sides, structure_difference
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, eq=False)
class Default:
    """An element that stands for a missing field; two of them are equal if they hold the same bytes.

    Attributes:
        value: As it is given again, with arrays that nobody writes into.
        leaves: Arrays of the element.
        tree: Its structure.
    """

    value: Any
    leaves: tuple[NDArray[Any], ...]
    tree: ElementTree

    def key(self) -> Hashable:
        """Return what tells it from others."""
        return self.tree.paths, self.tree.shapes, tuple(leaf.tobytes() for leaf in self.leaves)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Default):
            return NotImplemented
        return self.tree.treedef == other.tree.treedef and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def around(self, elements: PyTree | None, rows: NDArray[np.int64], num_records: int) -> PyTree:
        """Return the elements of some rows of so many, and this one in the others; None: of no row."""
        leaves = [np.repeat(leaf[None], num_records, axis=0) for leaf in self.leaves]
        if elements is not None:
            for leaf, some in zip(leaves, self.tree.leaves_of(elements, len(rows), "decode"), strict=True):
                leaf[rows] = some
        return self.tree.treedef.unflatten(leaves)


def default_of(where: str, holds: tuple[np.dtype[Any], tuple[int, ...]] | Codec, value: Any) -> Default:
    """Return the default of a field, checked.

    Args:
        where: What errors name as the place.
        holds: `(dtype, shape)` or a codec.
        value: An array; for `Ragged` one of at most `max_length` items, or of bytes a text; else an element.

    Raises:
        ArsrcTypeError: It is of another kind.
        ArsrcValueError: It has another shape, or a value does not fit.
    """
    if isinstance(holds, tuple):
        array = _cast(where, value, *holds)
        return Default(array, (array,), ElementTree(jax.ShapeDtypeStruct(array.shape, array.dtype)))
    if isinstance(holds, Ragged):
        return _of_items(where, holds, value)
    try:
        tree = ElementTree(holds.element_spec())
    except ArsrcValueError:  # it is not known before the codec is resolved
        tree = ElementTree(jax.tree_util.tree_map(_spec_of, value))
    leaves = tree.flatten(value)
    if leaves is None:
        raise ArsrcValueError(where, *structure_difference(tree.spec, value))
    arrays = tuple(
        _cast(f"{where} leaf {path}", leaf, dtype, shape)
        for path, leaf, (shape, dtype) in zip(tree.paths, leaves, tree.shapes, strict=True)
    )
    return Default(tree.treedef.unflatten(arrays), arrays, tree)


def _of_items(where: str, ragged: Ragged, value: Any) -> Default:
    """Return the default of a field of any length."""
    if isinstance(value, str | bytes) and ragged.dtype == np.uint8:
        value = np.frombuffer(value.encode() if isinstance(value, str) else value, np.uint8)
    array = np.asarray(value)
    items = _frozen(cast_batch(where, array if array.size else array.astype(ragged.dtype), ragged.dtype, ()))
    if len(items) > ragged.max_length:
        raise ArsrcValueError(where, f"has more items than max_length={ragged.max_length}", num_items=len(items))
    element = ragged.decode(RecordBatch.from_records([items.astype(stored_dtype(ragged.dtype)).tobytes()]))
    tree = ElementTree(ragged.element_spec())
    return Default(items, tuple(_frozen(leaf[0]) for leaf in tree.leaves_of(element, 1, where)), tree)


def _spec_of(leaf: Any) -> jax.ShapeDtypeStruct:
    array = np.asarray(leaf)
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _cast(where: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array of a dtype and shape that nobody writes into."""
    array = np.asarray(value)
    found = both_sides(array_text(dtype, shape), array_text(array.dtype, array.shape))
    if array.shape != shape:
        raise ArsrcValueError(where, "has another shape", found)
    try:
        return _frozen(cast_batch(where, array[None], dtype, shape)[0])
    except ArsrcTypeError as error:  # which shows an axis that was not given
        raise ArsrcTypeError(where, "has a dtype of another kind", found) from error


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that nobody writes into."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy
