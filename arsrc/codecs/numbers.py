"""Which numbers a dtype takes: one rule for all codecs, decoding and encoding, where stored numbers have no dtype.

Bools are taken for integers, integers for integers that they fit and for floats that hold them exactly, and floats for
floats, rounded. Nothing is taken the other way round: 1 is no bool, 1.0 no integer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDE: dict[str, type] = {"b": np.bool_, "i": np.int64, "f": np.float64, "c": np.complex128}
EXACT = 2**53  # below it all integers are floats of 64 bits


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return "b", "i", "f" or "c", for dtypes of ml_dtypes too, which NumPy takes for raw bytes; "" for no numbers."""
    if dtype.kind in "OSUMm" or issubclass(dtype.type, np.void):
        return ""
    is_integer = dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))
    return "i" if is_integer else dtype.kind if dtype.kind in "bc" else "f"


def wide_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the same kind that Python's numbers fit."""
    return dtype if dtype == np.uint64 else np.dtype(_WIDE[kind_of(dtype)])


def as_wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the dtype of its kind that Python's numbers fit, and that gives them back."""
    with np.errstate(invalid="ignore"):  # of NaNs in dtypes of ml_dtypes
        return array.astype(wide_dtype(array.dtype), copy=False)


def misfits(array: NDArray[Any], cast: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where `cast` is no longer what `array` was, but for the rounding of floats; bool[*shape]."""
    wrong: NDArray[np.bool_]
    if kind_of(cast.dtype) == "i":
        # Back and forth alone would let 2**63 pass as -2**63.
        return (cast.astype(array.dtype) != array) | (np.signbit(cast) != np.signbit(array))
    held = as_wide(cast)
    if kind_of(array.dtype) == "f" == kind_of(cast.dtype):
        most = as_wide(np.full(1, np.inf).astype(cast.dtype))  # of dtypes without infinity that have no NaN either
        is_same = (array == held) | (np.isnan(array) & np.isnan(held))
        return np.where(np.isfinite(array), ~np.isfinite(held) | (np.abs(array) > most), ~is_same)
    if kind_of(array.dtype) != "i":
        wrong = np.isfinite(array) & ~np.isfinite(held)
        return wrong
    whole, held = as_wide(array), held.real
    # Only rounding leads to the first float beyond all integers, which would come back as any of them.
    inside = np.isfinite(held) & (held < float(int(np.iinfo(whole.dtype).max) + 1))
    return ~inside | (np.where(inside, held, 0).astype(whole.dtype) != whole)


def misfit_text(value: Any, dtype: np.dtype[Any]) -> str:
    """Return what is wrong with a number of `misfits`, to follow "which"."""
    is_whole = isinstance(value, int) and kind_of(dtype) != "i"
    return f"does not fit {dtype.name}{' exactly' if is_whole else ''}"
