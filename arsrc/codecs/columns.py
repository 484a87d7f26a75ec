"""Values of one field of many records, as Python's objects, to the arrays that were declared for it.

Whole columns are converted at once; only where one does not fit, its rows are looked at one by one, to name the first.
"""

import dataclasses
import itertools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.defaults import Default
from arsrc.codecs.element_tree import array_text
from arsrc.codecs.field_advice import for_bytes
from arsrc.codecs.numbers import EXACT, as_wide, kind_of, misfit_text, misfits, wide_dtype
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import from_stored, stored_dtype
from arsrc.errors import RecordError
from arsrc.record_batch import RecordBatch

Holds = tuple[np.dtype[Any], tuple[int, ...]] | Codec
"""What a field holds: an array of a dtype and a shape, or what a codec makes of its bytes."""

# Types of Python's numbers that a kind of dtype takes.
_TAKES: dict[str, set[type]] = {
    "b": {bool},
    "i": {bool, int},
    "f": {bool, int, float},
    "c": {bool, int, float, complex},
}


class Missing:
    """Stands in a column for the value of a record that has none."""


MISSING = Missing()


class _MisfitError(Exception):
    """A value is not what its field holds."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix


def _misfit(what: str, fix: str) -> _MisfitError:
    """Return the error for a value: what is wrong, to follow the field's name, and what to do about it."""
    return _MisfitError(what, fix)


def column(name: str, holds: Holds, values: list[Any], records: RecordBatch, default: Default | None = None) -> PyTree:
    """Return the values of a field, one a record, as it is declared: leaves `dtype[len(values), *shape]`.

    An array's value is a number or bool, nested lists of them, or bytes, which are its items, little-endian. A
    codec's is bytes or a text, which is its UTF-8 bytes; for `Ragged` it may be a list of numbers. Bools are taken for
    integers, integers for floats that hold them exactly, and nothing the other way round.

    Args:
        name: The field's name, for errors.
        holds: What is declared.
        values: One a record, `MISSING` for none, None for null.
        records: The records; a codec's are stopped as these are.
        default: What stands for values that are missing or null; None: that is an error.

    Raises:
        RecordError: A value is missing, of another kind, shape or length, or does not fit the dtype.
    """
    if default is not None and None in values:
        values = [MISSING if value is None else value for value in values]
    if default is None or MISSING not in values:
        return _present(name, holds, values, records)
    rows = np.array([row for row, value in enumerate(values) if value is not MISSING], np.int64)
    try:
        some = _present(name, holds, [values[row] for row in rows], records) if len(rows) else None
    except RecordError as error:
        raise RecordError(int(rows[error.row]), error.what, error.fix) from error
    return default.around(some, rows, len(values))


def _present(name: str, holds: Holds, values: list[Any], records: RecordBatch) -> PyTree:
    """Return a column of which nothing may be missing."""
    try:
        if isinstance(holds, tuple):
            return _arrays(values, *holds)
        blobs = RecordBatch.from_records(_blobs(values, holds))
    except _MisfitError:
        raise _first_misfit(name, holds, values) from None
    try:
        return holds.decode(dataclasses.replace(records, data=blobs.data, offsets=blobs.offsets))
    except RecordError as error:
        raise in_field(name, error) from error


def blob(name: str, codec: Codec, value: Any) -> bytes:
    """Return the bytes that one record holds for a codec, as `column` does for all.

    Raises:
        RecordError: The value is missing or of another kind.
    """
    try:
        return _blobs([value], codec)[0]
    except _MisfitError:
        raise _first_misfit(name, codec, [value]) from None


def in_field(name: str, error: RecordError) -> RecordError:
    """Return the error of a codec of a field, which names the field."""
    return RecordError(error.row, f"field {name!r}: {error.what}", error.fix)


def _first_misfit(name: str, holds: Holds, values: list[Any]) -> RecordError:
    """Return the error for the first record whose value does not fit."""
    row = 0
    while True:
        try:
            _arrays([values[row]], *holds) if isinstance(holds, tuple) else _blobs([values[row]], holds)
        except _MisfitError as misfit:
            is_null = values[row] is None
            fix = f"Where it may be null, say what stands for it: default={{{name!r}: ...}}." if is_null else misfit.fix
            return RecordError(row, f"field {name!r} {misfit.what}", fix)
        row += 1


def _arrays(values: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `dtype[len(values), *shape]`."""
    types = set(map(type, values))
    if bytes not in types:
        return _from_lists(values, dtype, shape)
    if types == {bytes}:
        return _from_bytes(values, dtype, shape)
    array = np.empty((len(values), *shape), dtype)
    is_raw = np.array([type(value) is bytes for value in values])
    array[is_raw] = _from_bytes([value for value in values if type(value) is bytes], dtype, shape)
    array[~is_raw] = _from_lists([value for value in values if type(value) is not bytes], dtype, shape)
    return array


def _from_bytes(values: list[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    stored = np.dtype((stored_dtype(dtype), shape))
    if set(map(len, values)) != {stored.itemsize}:
        what = f"holds {len(values[0])} bytes, not {stored.itemsize} as {array_text(dtype, shape)} takes"
        fix = "Bytes for an array are its items, little-endian, in C order."
        raise _misfit(what, for_bytes(values[0][:12], fix))
    # Not frombuffer, whose result is a view of a view: this one's memory is seen to be nobody else's.
    array: NDArray[Any] = np.ndarray((len(values), *shape), stored.base, b"".join(values))
    return from_stored(array, dtype)


def _from_lists(values: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    flat = values
    for size in shape:
        if not set(map(type, flat)) <= {list} or not set(map(len, flat)) <= {size}:
            wrong = next(each for each in flat if type(each) is not list or len(each) != size)
            raise _misfit(*_other_than(f"a list of {size} in {array_text(dtype, shape)}", wrong))
        flat = list(itertools.chain.from_iterable(flat))
    return _numbers(flat, dtype).reshape(len(values), *shape)


def _blobs(values: list[Any], codec: Codec) -> list[bytes]:
    """Return the bytes of each value, for a codec to decode."""
    if set(map(type, values)) <= {bytes}:
        return values
    items = codec.dtype if isinstance(codec, Ragged) else None
    is_text = items is None or items == np.uint8
    found = [value.encode() if is_text and type(value) is str else value for value in values]
    lists = [value for value in found if type(value) is list]
    if lists and items is not None:
        data = _numbers(list(itertools.chain.from_iterable(lists)), items).astype(stored_dtype(items)).tobytes()
        ends = itertools.accumulate((len(each) * items.itemsize for each in lists), initial=0)
        pieces = iter([data[start:stop] for start, stop in itertools.pairwise(ends)])
        found = [next(pieces) if type(value) is list else value for value in found]
    for value in found:
        if type(value) is not bytes:
            wanted = ["bytes", *(["a text"] if is_text else []), *(["a list"] if items is not None else [])]
            raise _misfit(*_other_than(f"{' or '.join(wanted)} for {type(codec).__name__}", value))
    return found


def _numbers(flat: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `dtype[len(flat)]` of Python's numbers, by the rule of `arsrc.codecs.numbers`."""
    try:
        wide = _wide(flat, dtype)
    except (struct.error, TypeError, OverflowError):
        raise _first_refused(flat, dtype) from None
    with np.errstate(all="ignore"):
        array: NDArray[Any] = wide.astype(dtype)
    if kind_of(dtype) == "b":
        return array
    wrong_at = misfits(wide, array)
    if kind_of(dtype) in "fc":
        _mark_inexact(flat, wide, array, wrong_at)
    if np.count_nonzero(wrong_at):
        raise _misfit_of(flat[int(wrong_at.argmax())], dtype)
    return array


def _wide(flat: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return Python's numbers in the widest dtype of the kind; raises for what is none of it."""
    wide = wide_dtype(dtype)
    if wide.kind in "bc":
        if not set(map(type, flat)) <= _TAKES[wide.kind]:
            raise TypeError
        return np.array(flat, wide)
    # Which takes nothing but numbers, several times as fast as NumPy.
    return np.frombuffer(struct.pack(f"{len(flat)}{wide.char}", *flat), wide)


def _first_refused(flat: list[Any], dtype: np.dtype[Any]) -> _MisfitError:
    """Return the error for the first of some values that is no number of the kind, or too large for its widest."""
    kind = kind_of(dtype)
    row = 0
    while type(each := flat[row]) in _TAKES[kind]:
        try:
            _wide([each], dtype)
        except (struct.error, OverflowError):
            return _misfit_of(each, dtype)
        row += 1
    return _misfit(*_other_than("a bool" if kind == "b" else f"a number of {dtype.name}", each))


def _mark_inexact(flat: list[Any], wide: NDArray[Any], array: NDArray[Any], wrong_at: NDArray[np.bool_]) -> None:
    """Mark the integers that floats do not hold exactly: `wide` itself may have been rounded."""
    back = as_wide(array)
    for row in np.flatnonzero((back != wide) & (np.rint(wide) == wide) | (np.abs(wide) >= EXACT)).tolist():
        wrong_at[row] |= type(flat[row]) is int and back[row].item() != flat[row]


def _misfit_of(number: Any, dtype: np.dtype[Any]) -> _MisfitError:
    return _misfit(f"holds {_shown(number)}, which {misfit_text(number, dtype)}", "Choose a wider dtype.")


def _other_than(wanted: str, value: Any) -> tuple[str, str]:
    """Return what is wrong, and what to do, about a value of another kind or length."""
    if value is MISSING:
        return "is missing", ""
    if value is None:
        return f"holds null, not {wanted}", "Lists with null in them are no arrays: read such records by Map."
    if isinstance(value, dict):
        fix = "Maps inside of records are not read: read such records by Map."
        return f"holds a map of {len(value)}, not {wanted}", fix
    if isinstance(value, list):
        fix = "Lists are read as (dtype, shape), or as Ragged(dtype, max_length=...) where their lengths differ."
        return f"holds a list of {len(value)}, not {wanted}", fix
    if isinstance(value, str):
        fix = "Texts are read as Ragged(max_length=...), or by a codec, such as Map."
        return f"holds a text of {len(value)}, not {wanted}", fix
    if isinstance(value, bytes):
        return f"holds {len(value)} bytes, not {wanted}", "Bytes are read as an array, not inside of lists."
    shown = str(value).lower() if isinstance(value, bool) else _shown(value)
    word = {int: "the integer ", float: "the float ", bool: ""}.get(type(value), f"{type(value).__name__} ")
    return f"holds {word}{shown}, not {wanted}", "Choose a dtype and a shape that hold it, or read such records by Map."


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a huge integer"
    return text if len(text) <= 80 else f"{text[:80]}..."
