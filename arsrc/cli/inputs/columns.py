"""Columns of a table of pyarrow: nested ones laid open, and what their values are as NumPy arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc.cli.inputs.damage import damage
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.errors import ArsrcReadError

_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}  # those that NumPy has not
_FIX = "An array has no place for what is missing: fill it in, or leave the row out."


class Holds(NamedTuple):
    """What the rows of a column hold.

    Attributes:
        kind: "array" of a fixed shape, "list" of any number of numbers, "blob" for bytes and texts, else "other".
        dtype: Of arrays and lists.
        shape: Of arrays.
    """

    kind: str
    dtype: Any = None
    shape: tuple[int, ...] = ()


class Rows(NamedTuple):
    """Some rows of a file.

    Attributes:
        names: Of the columns.
        columns: Their values, arrays of pyarrow.
        path: The file.
        position: Number of the first row in it.
    """

    names: list[str]
    columns: list[Any]
    path: str
    position: int

    def missing(self, name: str, is_missing: Any) -> ArsrcReadError:
        """Return the error for a column without a value where `is_missing`, bool[num_rows] of pyarrow or NumPy."""
        position = self.position + int(np.flatnonzero(np.asarray(is_missing))[0])
        return damage(self.path, f"column {name!r} has no value in a row", _FIX, position=position)


def laid_open(arrow: Any, table: Any) -> tuple[list[str], list[Any]]:
    """Return names and arrays of a table's columns.

    Fields of nested columns are columns `outer.inner`; what is coded by a dictionary is decoded; times are whole
    numbers in the column's unit.
    """
    while any(arrow.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table.column_names, [_plain(arrow, column.combine_chunks()) for column in table.columns]


def _plain(arrow: Any, column: Any) -> Any:
    if isinstance(column, arrow.ChunkedArray):  # of no rows
        column = arrow.concat_arrays(column.chunks) if column.num_chunks else arrow.array([], column.type)
    if isinstance(column.type, arrow.BaseExtensionType):
        column = column.storage
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if arrow.types.is_temporal(column.type) and not arrow.types.is_interval(column.type):
        column = column.view(arrow.int64() if column.type.bit_width == 64 else arrow.int32())
    return column


def holds(arrow: Any, kind: Any) -> Holds:
    """Return what a column of a type of pyarrow holds."""
    types = arrow.types
    if _is_number(arrow, kind):
        return Holds("array", _dtype(kind))
    if types.is_fixed_size_list(kind):
        inner = holds(arrow, kind.value_type)
        return inner._replace(shape=(kind.list_size, *inner.shape)) if inner.kind == "array" else Holds("other")
    if (types.is_list(kind) or types.is_large_list(kind)) and _is_number(arrow, kind.value_type):
        return Holds("list", _dtype(kind.value_type))
    is_blob: tuple[Callable[[Any], bool], ...] = (
        types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view,
        types.is_string, types.is_large_string, types.is_string_view,
    )  # fmt: skip
    return Holds("blob" if any(test(kind) for test in is_blob) else "other")


def _dtype(kind: Any) -> np.dtype[Any]:
    return np.dtype(_NAMES.get(str(kind), str(kind)))


def _is_number(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


def array_of(rows: Rows, number: int, what: Holds) -> NDArray[Any]:
    """Return a column of arrays as `dtype[num_rows, *shape]`; that one has no value is an error."""
    column = rows.columns[number]
    num_rows = len(column)
    for _ in what.shape:
        if column.null_count:
            raise rows.missing(rows.names[number], column.is_null())
        column = column.flatten()
    if column.null_count:
        is_missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False)).reshape(num_rows, -1).any(axis=1)
        raise rows.missing(rows.names[number], is_missing)
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.reshape(num_rows, *what.shape)


def items_of(rows: Rows, number: int, what: Holds) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the numbers of a column of lists end to end, as records hold them, and i64[num_rows], how many each has.

    A missing list has none; a missing number is an error.
    """
    column = rows.columns[number]
    counts = np.asarray(column.value_lengths().fill_null(0), np.int64)
    items = column.flatten()
    if items.null_count:
        row = int(np.searchsorted(np.cumsum(counts), np.flatnonzero(np.asarray(items.is_null()))[0], "right"))
        raise rows.missing(rows.names[number], np.arange(len(counts)) == row)
    return items.to_numpy(zero_copy_only=False).astype(stored_dtype(what.dtype), copy=False), counts
