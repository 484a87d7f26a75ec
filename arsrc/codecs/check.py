"""What arrays an element is made of: specs as users write them, and the checks that arrays follow them."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.errors import ArsrcTypeError, ArsrcValueError, message, sides

NUMPY_ONLY = "Give NumPy arrays: decoding runs inside a callback, where a call into JAX can deadlock."

_KINDS = (np.bool_, np.integer, np.floating, np.complexfloating)


def check_batch(decoded: PyTree, spec: PyTree, num_records: int, where: str = "decode") -> list[NDArray[Any]]:
    """Check that a decoded batch has the spec's structure, shapes and dtypes; return its leaves.

    Host only; a few microseconds a batch plus less than one a leaf.

    Args:
        decoded: What a codec's `decode` gave.
        spec: The codec's `element_spec()`: PyTree of `jax.ShapeDtypeStruct` without batch axis.
        num_records: Length of the leading axis that every leaf must have.
        where: What the error names as the place.

    Returns:
        The leaves in tree order, `spec.dtype[num_records, *spec.shape]`.

    Raises:
        ArsrcValueError: The structure, a shape or a dtype differs; the text names the leaf and shows both.
        ArsrcTypeError: A leaf is a JAX array.
    """
    treedef: Any
    wanted, treedef = jax.tree_util.tree_flatten(spec)
    leaves, found = jax.tree_util.tree_flatten(decoded)
    if found != treedef:
        raise ArsrcValueError(message(where, *structure_difference(spec, decoded)))
    for i, want in enumerate(wanted):
        leaf = leaves[i]
        if type(leaf) is not np.ndarray:
            if isinstance(leaf, jax.Array):
                raise ArsrcTypeError(message(where, f"leaf {leaf_paths(spec)[i]} is a JAX array", NUMPY_ONLY))
            leaf = leaves[i] = np.asarray(leaf)
        if leaf.dtype != want.dtype or leaf.shape != (num_records, *want.shape):
            expected = array_text(want.dtype, (num_records, *want.shape))
            what = leaf_difference(spec, i, expected, array_text(leaf.dtype, leaf.shape))
            raise ArsrcValueError(message(where, *what))
    return leaves


def leaf_shapes(spec: PyTree) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each leaf of an element spec, in tree order.

    Raises:
        ArsrcTypeError: The codec's spec has a leaf without shape and dtype.
    """
    leaves = jax.tree_util.tree_leaves(spec)
    for path, leaf in zip(leaf_paths(spec), leaves, strict=True):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            fix = "Give a PyTree of jax.ShapeDtypeStruct."
            raise ArsrcTypeError(message("element_spec", f"leaf {path} is no array spec", fix, leaf=leaf))
    return [(tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in leaves]


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


def leaf_difference(spec: PyTree, leaf: int, wanted: str, found: str) -> tuple[str, str]:
    """Return what is wrong, and both sides, for the array number `leaf` in tree order."""
    return f"leaf {leaf_paths(spec)[leaf]} is not what the spec says", both_sides(wanted, found)


def both_sides(wanted: str, found: str) -> str:
    """Put two texts on aligned lines, to follow what is wrong in a message."""
    return "Both sides:" + sides(spec=wanted, got=found)


def leaf_paths(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Return the leaves' paths in tree order, as in `['image'][0]`."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf)[0]
    return [jax.tree_util.keystr(path) or "(root)" for path, _ in paths]


def array_text(dtype: np.dtype[Any], shape: tuple[object, ...]) -> str:
    """Write dtype and shape as in `float32[2, 3]`."""
    order = "" if dtype.isnative else f" ({dtype.str})"
    return f"{dtype.name}[{', '.join(map(str, shape))}]{order}"


def is_pair(value: Any) -> bool:
    """Say whether `value` is `(dtype, shape)`, the shape an integer or a sequence of integers."""
    if type(value) is not tuple or len(value) != 2 or not isinstance(value[0], (str, type, np.dtype)):
        return False
    shape = value[1] if isinstance(value[1], (tuple, list)) else (value[1],)
    return all(isinstance(size, (int, np.integer)) for size in shape)


def array_spec(where: str, value: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype (native byte order) and shape that `value` stands for.

    Args:
        where: What errors name as the place.
        value: A dtype, `(dtype, shape)`, or anything with `shape` and `dtype`, as a `jax.ShapeDtypeStruct`.

    Raises:
        ArsrcTypeError: `value` is no spec, or no dtype that a JAX array can have.
        ArsrcValueError: A size is below 1.
    """
    if is_pair(value):
        dtype, shape = value
    elif isinstance(value, (str, type, np.dtype)):
        dtype, shape = value, ()
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        dtype, shape = value.dtype, value.shape
    else:
        fix = "Write a dtype, (dtype, shape) or a jax.ShapeDtypeStruct."
        raise ArsrcTypeError(message(where, "is no array spec", fix, spec=value))
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return array_dtype(where, dtype), tuple(whole_number(f"{where} shape", "size", size, 1) for size in sizes)


def array_dtype(where: str, value: Any) -> np.dtype[Any]:
    """Return `value` as a dtype in native byte order that JAX arrays can have.

    Raises:
        ArsrcTypeError: It is none: no dtype at all, text, objects, dates, or floats beyond 64 bits.
    """
    fix = "Use bool, an integer, float or complex dtype, or one of ml_dtypes (bfloat16, float8_e4m3fn, ...)."
    try:
        # np.dtype(None) is float64: refuse it.
        dtype = np.dtype("O" if value is None else value)
    except TypeError:
        raise ArsrcTypeError(message(where, "is no dtype", fix, dtype=value)) from None
    # ml_dtypes' types are of kind V, like structured and raw ones, but have scalar types of their own.
    extended = dtype.kind == "V" and not issubclass(dtype.type, np.void)
    if not extended and (dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8)):
        raise ArsrcTypeError(message(where, "is no dtype that JAX arrays can have", fix, dtype=dtype.name))
    return dtype.newbyteorder("=")


def whole_number(where: str, name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return `value` as an int in `[least, most]`."""
    subject = "" if where.endswith(name) else f"{name} "
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        fix = "It is static: it cannot be traced." if isinstance(value, jax.core.Tracer) else ""
        raise ArsrcTypeError(message(where, f"{subject}must be an integer", fix, **{name: value})) from None
    if number < least or (most is not None and number > most):
        span = f"at least {least}" if most is None else f"in [{least}, {most}]"
        raise ArsrcValueError(message(where, f"{subject}must be {span}", **{name: value}))
    return number


def check_codec(codec: Any) -> None:
    """Raise `ArsrcTypeError` unless `codec` is one."""
    if isinstance(codec, type) or not isinstance(codec, Codec):
        fix = "Use one of arsrc.codecs, as an instance: Bytes(), Struct(...), Ragged(...), Map(...)."
        raise ArsrcTypeError(message("codec", "is no codec", fix, codec=codec))


def cast_batch(where: str, values: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `values` as `dtype[num_records, *shape]`, to be encoded.

    Casts that NumPy calls safe pass, and casts inside a kind (integer, float, complex) as long as every value
    fits: floats are rounded, integers never change.

    Raises:
        ArsrcTypeError: The dtype is of another kind.
        ArsrcValueError: The shape differs, or a value does not fit the dtype.
    """
    if isinstance(values, (list, tuple)):
        fix = "Use a NumPy array: JAX takes a list for a tree, and its items for the leaves."
        raise ArsrcTypeError(message(where, f"is a {type(values).__name__}", fix))
    array = np.asarray(values)
    wanted = array_text(dtype, ("n", *shape))
    found = array_text(array.dtype, array.shape)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise ArsrcValueError(message(where, "has another shape", both_sides(wanted, found)))
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype, copy=False)
    if _kind(array.dtype) is None or _kind(array.dtype) is not _kind(dtype):
        raise ArsrcTypeError(message(where, "has a dtype of another kind", both_sides(wanted, found)))
    with np.errstate(over="ignore", invalid="ignore"):
        cast: NDArray[Any] = array.astype(dtype)
    misfits = _misfits(array, cast)
    if misfits.any():
        what = f"holds a value that does not fit {dtype.name}"
        raise ArsrcValueError(message(where, what, value=array[misfits][0].item()))
    return cast


def _kind(dtype: np.dtype[Any]) -> type | None:
    return next((kind for kind in _KINDS if jax.numpy.issubdtype(dtype, kind)), None)


def _misfits(array: NDArray[Any], cast: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where `cast` is no longer what `array` was, but for the rounding of floats."""
    wrong: NDArray[np.bool_]
    if _kind(cast.dtype) is np.integer:
        # Back and forth alone would let 2**63 pass as -2**63.
        wrong = (cast.astype(array.dtype) != array) | (np.signbit(cast) != np.signbit(array))
    else:
        wrong = np.isfinite(array) & ~np.isfinite(cast)
    return wrong
