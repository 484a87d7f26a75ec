"""The tree of an element: its structure and arrays, and the check that what was decoded follows them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.errors import ArsrcTypeError, ArsrcValueError, sides

NUMPY_ONLY = "Give NumPy arrays: decoding runs inside a callback, where a call into JAX can deadlock."

_NUMBERS = "biufcV"  # kinds of dtypes that can be cast; V: those of ml_dtypes

# What jax.tree.flatten calls: C++, but for functions of nodes' own. Decoding must not enter JAX's Python code.
_flatten = jax.tree_util.default_registry.flatten


@dataclasses.dataclass(frozen=True)
class ElementTree:
    """An element spec taken apart once, so that nothing is asked of JAX while batches are decoded.

    Attributes:
        spec: PyTree of `jax.ShapeDtypeStruct`, without batch axis.
        shapes: Shape and dtype of each leaf, in tree order.
        paths: Path of each leaf, for errors.
        treedef: The structure.

    Raises:
        ArsrcTypeError: A leaf has no shape and dtype.
    """

    spec: PyTree = dataclasses.field(compare=False)
    shapes: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...] = dataclasses.field(init=False)
    paths: tuple[str, ...] = dataclasses.field(init=False, compare=False)
    treedef: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        leaves, treedef = _flatten(self.spec)
        paths = tuple(leaf_paths(self.spec))
        for path, leaf in zip(paths, leaves, strict=True):
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                fix = "Give a PyTree of jax.ShapeDtypeStruct."
                raise ArsrcTypeError("element_spec", f"leaf {path} is no array spec", fix, leaf=leaf)
        object.__setattr__(self, "shapes", tuple((tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in leaves))
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "treedef", treedef)

    def flatten(self, tree: PyTree) -> list[Any] | None:
        """Return the leaves of a tree of this structure; None if it has another one."""
        leaves, treedef = _flatten(tree)
        return leaves if treedef == self.treedef else None

    def leaves_of(self, batch: PyTree, num_records: int, where: str) -> list[NDArray[Any]]:
        """Return the leaves of a batch of elements, checked; see `check_batch`."""
        leaves = self.flatten(batch)
        if leaves is None:
            raise ArsrcValueError(where, *structure_difference(self.spec, batch))
        for i, (shape, dtype) in enumerate(self.shapes):
            leaf = leaves[i]
            if type(leaf) is not np.ndarray:
                if isinstance(leaf, jax.Array):
                    raise ArsrcTypeError(where, *self.jax_array(i))
                leaf = leaves[i] = np.asarray(leaf)
            if leaf.dtype != dtype or leaf.shape != (num_records, *shape):
                raise ArsrcValueError(where, *self.leaf_difference(i, leaf, (num_records,)))
        return leaves

    def leaf_difference(self, i: int, leaf: Any, lead: tuple[int, ...] = ()) -> tuple[str, str]:
        """Return what is wrong, and what to do about it, for leaf `i`, an array with `lead` in front by the spec."""
        shape, dtype = self.shapes[i]
        both = both_sides(array_text(dtype, lead + shape), array_text(leaf.dtype, leaf.shape))
        if leaf.dtype != dtype and leaf.dtype.kind in _NUMBERS:
            other = "" if leaf.dtype.name == dtype.name else f", or let the spec say {leaf.dtype.name}"
            both = f'Cast it, as by np.asarray(leaf, "{dtype.name}"){other}. {both}'
        return f"leaf {self.paths[i]} is not what the spec says", both

    def jax_array(self, i: int) -> tuple[str, str]:
        """Return what is wrong with leaf `i`, and what to do about it, where it is a JAX array."""
        return f"leaf {self.paths[i]} is a JAX array", NUMPY_ONLY


def plain_template(treedef: Any) -> PyTree | None:
    """Return a tree with the numbers of its leaves in their places; None if it has other containers than Python's.

    Trees like it can be told from others without JAX: dicts, lists, tuples (named ones too) and None.
    """

    def is_plain(part: Any) -> bool:
        if part is None or type(part) is int:
            return True
        if type(part) is dict:
            return all(map(is_plain, part.values()))
        is_named = type(part).__bases__ == (tuple,) and hasattr(part, "_fields")
        return (type(part) in (list, tuple) or is_named) and all(map(is_plain, part))

    try:
        template = treedef.unflatten(range(treedef.num_leaves))
        return template if is_plain(template) else None
    except Exception:  # of a container of the user's own, which is not made of numbers
        return None


def check_batch(decoded: PyTree, spec: PyTree, num_records: int, where: str = "decode") -> list[NDArray[Any]]:
    """Check that a decoded batch has the spec's structure, shapes and dtypes; return its leaves.

    Host only.

    Args:
        decoded: What a codec's `decode` gave.
        spec: The codec's `element_spec()`: PyTree of `jax.ShapeDtypeStruct` without batch axis.
        num_records: Length of the leading axis that every leaf must have.
        where: What the error names as the place.

    Returns:
        The leaves in tree order, `spec.dtype[num_records, *spec.shape]`.

    Raises:
        ArsrcValueError: The structure, a shape or a dtype differs; the text names the leaf and shows both.
        ArsrcTypeError: A leaf is a JAX array, or one of the spec has no shape and dtype.
    """
    return ElementTree(spec).leaves_of(decoded, num_records, where)


def structure_difference(spec: PyTree, tree: PyTree) -> tuple[str, str]:
    """Return what is wrong, and both sides, for a tree whose structure is not that of `spec`."""
    wanted, found = leaf_paths(spec), leaf_paths(tree)
    missing = [path for path in wanted if path not in found]
    extra = [path for path in found if path not in wanted]
    if missing:
        what = f"leaf {missing[0]} of the spec is missing"
    elif extra:
        what = f"leaf {extra[0]} is not in the spec"
    else:
        what = "the containers differ from the spec's"
        treedefs = (str(jax.tree_util.tree_structure(side)) for side in (spec, tree))
        return what, both_sides(*treedefs)
    return what, both_sides(", ".join(wanted), ", ".join(found))


def both_sides(wanted: str, found: str) -> str:
    """Put two texts on aligned lines, to follow what is wrong in a message."""
    return "Both sides:" + sides(spec=wanted, got=found)


def leaf_paths(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Return the leaves' paths in tree order, as in `['image'][0]`."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf)[0]
    return [jax.tree_util.keystr(path) or "(root)" for path, _ in paths]


def array_text(dtype: np.dtype[Any], shape: tuple[object, ...]) -> str:
    """Write dtype and shape as in `float32[2, 3]`; bytes and texts as in `bytes of 801`, or `bytes[3]` of several."""
    if dtype.kind in "SU":
        word, size = ("bytes", dtype.itemsize) if dtype.kind == "S" else ("text", dtype.itemsize // 4)
        return f"{word}[{', '.join(map(str, shape))}]" if shape else f"{word} of {size}"
    order = "" if dtype.isnative else f" ({dtype.str})"
    return f"{dtype.name}[{', '.join(map(str, shape))}]{order}"


class _Bare(str):
    __slots__ = ()
    __repr__ = str.__str__


def tree_text(tree: PyTree) -> str:
    """Write a tree with dtype and shape in place of its arrays and specs."""

    def shown(leaf: Any) -> Any:
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            return leaf
        return _Bare(f"{leaf.dtype}{list(leaf.shape)}")

    return repr(jax.tree_util.tree_map(shown, tree))
