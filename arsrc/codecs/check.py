"""Values as users give them: specs of arrays, whole numbers, codecs, and arrays to encode."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec
from arsrc.codecs.element_tree import array_text, both_sides
from arsrc.codecs.numbers import as_wide, kind_of, misfit_text, misfits
from arsrc.errors import ArsrcTypeError, ArsrcValueError


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
        ArsrcValueError: A size is negative.
    """
    if is_pair(value):
        dtype, shape = value
    elif isinstance(value, (str, type, np.dtype)):
        dtype, shape = value, ()
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        dtype, shape = value.dtype, value.shape
    else:
        fix = "Write a dtype, (dtype, shape) or a jax.ShapeDtypeStruct."
        raise ArsrcTypeError(where, "is no array spec", fix, spec=value)
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return array_dtype(where, dtype), tuple(whole_number(f"{where} shape", "size", size, 0) for size in sizes)


def field_spec(where: str, value: Any) -> tuple[np.dtype[Any], tuple[int, ...]] | Codec:
    """Return what a field holds: a codec, or the dtype and shape that `value` stands for.

    Raises:
        ArsrcTypeError: It is neither.
        ArsrcValueError: A size is negative, or a `Map` shall run in worker processes.
    """
    if isinstance(value, type) and issubclass(value, Codec):
        raise ArsrcTypeError(where, "is the class of a codec", f"Give an instance: {value.__name__}(...).", spec=value)
    if isinstance(value, Mapping):
        fix = "Maps in maps are not read: write a dtype, (dtype, shape) or an instance of a codec, such as Map(...)."
        raise ArsrcTypeError(where, "is a mapping", fix, spec=value)
    if not isinstance(value, Codec):
        return array_spec(where, value)
    if number := getattr(value, "num_processes", 0):
        fix = "Leave it out here, or let one Map with num_processes decode whole records, as the codec of the config."
        raise ArsrcValueError(
            where, "a Map inside of another codec runs in no worker processes", fix, num_processes=number
        )
    return value


def array_dtype(where: str, value: Any) -> np.dtype[Any]:
    """Return `value` as a dtype in native byte order that JAX arrays can have.

    Raises:
        ArsrcTypeError: It is none: no dtype at all, text, objects, dates, or floats beyond 64 bits.
    """
    fix = "Use bool, an integer, float or complex dtype, or one of ml_dtypes (bfloat16, float8_e4m3fn, ...)."
    try:
        # np.dtype(None) is float64: refuse it.
        dtype = np.dtype("O" if value is None else value)
    except (TypeError, ValueError):  # the latter for classes of other things that have a dtype
        raise ArsrcTypeError(where, "is no dtype", fix, dtype=value) from None
    # ml_dtypes' types are of kind V, like structured and raw ones, but have scalar types of their own.
    extended = dtype.kind == "V" and not issubclass(dtype.type, np.void)
    if not extended and (dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8)):
        raise ArsrcTypeError(where, "is no dtype that JAX arrays can have", fix, dtype=dtype.name)
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
        raise ArsrcTypeError(where, f"{subject}must be an integer", fix, **{name: value}) from None
    if number < least or (most is not None and number > most):
        span = f"at least {least}" if most is None else f"in [{least}, {most}]"
        raise ArsrcValueError(where, f"{subject}must be {span}", **{name: value})
    return number


def check_codec(codec: Any) -> None:
    """Raise `ArsrcTypeError` unless `codec` is one."""
    if isinstance(codec, type) or not isinstance(codec, Codec):
        fix = "Use one of arsrc.codecs, as an instance: Bytes(), Struct(...), Ragged(...), Map(...)."
        raise ArsrcTypeError("codec", "is no codec", fix, codec=codec)


def cast_batch(where: str, values: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `values` as `dtype[num_records, *shape]`, to be encoded.

    Bools pass, casts inside a kind (integer, float, complex) and of integers to floats as long as every value fits:
    floats are rounded, integers never change.

    Raises:
        ArsrcTypeError: The dtype is of another kind.
        ArsrcValueError: The shape differs, or a value does not fit the dtype.
    """
    if isinstance(values, (list, tuple)):
        fix = "Use a NumPy array: JAX takes a list for a tree, and its items for the leaves."
        raise ArsrcTypeError(where, f"is a {type(values).__name__}", fix)
    array = np.asarray(values)
    wanted = array_text(dtype, ("n", *shape))
    found = array_text(array.dtype, array.shape)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise ArsrcValueError(where, "has another shape", both_sides(wanted, found))
    if array.dtype == dtype:
        return array
    kinds = kind_of(array.dtype), kind_of(dtype)
    is_whole = kinds in (("i", "f"), ("i", "c"))  # of 64 bits, some of which NumPy rounds and calls that safe
    if not is_whole and array.dtype.isbuiltin == dtype.isbuiltin == 1 and np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype, copy=False)
    if not is_whole and (not kinds[0] or kinds[0] not in ("b", kinds[1])):
        raise ArsrcTypeError(where, "has a dtype of another kind", both_sides(wanted, found))
    array = as_wide(array)  # dtypes of ml_dtypes are not cast into all others
    with np.errstate(over="ignore", invalid="ignore"):
        cast: NDArray[Any] = array.astype(dtype)
    wrong_at = misfits(array, cast)
    if wrong_at.any():
        value = array[wrong_at][0].item()
        noun = "an integer" if is_whole else "a value"
        raise ArsrcValueError(where, f"holds {noun} that {misfit_text(value, dtype)}", value=value)
    return cast
