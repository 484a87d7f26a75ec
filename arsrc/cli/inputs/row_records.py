"""The forms of records that rows of a table give: bytes, numbers, structures, maps."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from arsrc.cli.inputs.columns import Holds, Rows, array_of, items_of
from arsrc.cli.inputs.packages import packed_map
from arsrc.codecs import Struct
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.quoted import quoted


class Notes(Protocol):
    """What takes note of bytes that go by, to say by which codec they are read."""

    def add(self, records: Sequence[bytes]) -> None:
        """Take note of records, or of bytes that stand in them."""

    @property
    def codec(self) -> str:
        """The codec that reads them, as text; empty where there were none."""


class Form(Protocol):
    """What makes records of rows."""

    def records(self, rows: Rows) -> list[bytes]:
        """Return one record for each row."""

    @property
    def codec(self) -> str:
        """The codec that reads them, as text, as far as rows went by."""


def form_of(names: Sequence[str], columns: Sequence[Holds], notes: Callable[[], Notes]) -> Form:
    """Return the form of records that such columns give."""
    kinds = [column.kind for column in columns]
    if kinds == ["blob"]:
        return _Blobs(notes())
    if kinds == ["list"]:
        return _Items(columns[0])
    if set(kinds) == {"array"}:
        return _Structs(names, columns)
    return _Maps(names, columns, notes)


class _Blobs:
    """Bytes or texts as they are."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def records(self, rows: Rows) -> list[bytes]:
        (column,) = rows.columns
        if column.null_count:
            raise rows.missing(rows.names[0], column.is_null())
        records = [_as_bytes(value) for value in column.to_pylist()]
        self._notes.add(records)
        return records

    @property
    def codec(self) -> str:
        return self._notes.codec


class _Items:
    """The numbers of a list end to end."""

    def __init__(self, column: Holds) -> None:
        self._column, self._most = column, 1

    def records(self, rows: Rows) -> list[bytes]:
        if rows.columns[0].null_count:
            raise rows.missing(rows.names[0], rows.columns[0].is_null())
        pieces = _pieces(rows, 0, self._column)
        for piece in pieces:
            self._most = max(self._most, len(piece) // self._column.dtype.itemsize)
        return pieces

    @property
    def codec(self) -> str:
        return f'Ragged("{self._column.dtype}", max_length={self._most})'


class _Structs:
    """Arrays of fixed shapes end to end."""

    def __init__(self, names: Sequence[str], columns: Sequence[Holds]) -> None:
        self._columns = columns
        self._codec = Struct({name: (what.dtype, what.shape) for name, what in zip(names, columns, strict=True)})

    def records(self, rows: Rows) -> list[bytes]:
        arrays = {rows.names[at]: array_of(rows, at, what) for at, what in enumerate(self._columns)}
        encoded = self._codec.encode(arrays)
        return [encoded[row] for row in range(len(encoded))]

    @property
    def codec(self) -> str:
        return repr(self._codec)


class _Maps:
    """MessagePack maps of names to values; arrays and lists of numbers are their bytes, as `MsgPack` writes them.

    A name whose value is missing is left out.
    """

    def __init__(self, names: Sequence[str], columns: Sequence[Holds], notes: Callable[[], Notes]) -> None:
        self._names, self._columns = names, columns
        self._encode = packed_map()
        self._most = [1] * len(columns)
        self._are_whole = [True] * len(columns)
        self._notes = [notes() for _ in columns]

    def records(self, rows: Rows) -> list[bytes]:
        values = [self._values(rows, number, what) for number, what in enumerate(self._columns)]
        maps = [dict(zip(self._names, row, strict=True)) for row in zip(*values, strict=True)]
        if any(column.null_count for column in rows.columns):
            maps = [{name: value for name, value in one.items() if value is not None} for one in maps]
        return list(map(self._encode, maps))

    def _values(self, rows: Rows, number: int, what: Holds) -> list[Any]:
        column = rows.columns[number]
        if what.kind == "list":
            values: list[Any] = list(_pieces(rows, number, what))
            self._most[number] = max(self._most[number], *(len(value) // what.dtype.itemsize for value in values))
        elif what.shape:
            array = array_of(rows, number, what).astype(stored_dtype(what.dtype), copy=False)
            return [row.tobytes() for row in array]
        else:
            values = column.to_pylist()
        if what.kind == "blob":
            self._notes[number].add([_as_bytes(value) for value in values if value is not None])
        if column.null_count:
            self._are_whole[number] = False
            return [None if gone else value for gone, value in zip(column.is_null().to_pylist(), values, strict=True)]
        return values

    @property
    def codec(self) -> str:
        fields = []
        for number, (name, what) in enumerate(zip(self._names, self._columns, strict=True)):
            if what.kind == "array":
                text = f'("{what.dtype}", {what.shape})' if what.shape else f'"{what.dtype}"'
            elif what.kind == "list":
                text = f'Ragged("{what.dtype}", max_length={self._most[number]})'
            else:
                text = self._notes[number].codec
            if text and self._are_whole[number]:  # for others, the user says what stands in their place
                fields.append(f"{quoted(name)}: {text}")
        return f"MsgPack({{{', '.join(fields)}}})" if fields else ""


def _pieces(rows: Rows, number: int, what: Holds) -> list[bytes]:
    """Return the bytes of each list of a column."""
    items, counts = items_of(rows, number, what)
    ends = np.cumsum(counts) * what.dtype.itemsize
    data = items.tobytes()
    return [
        data[end - size : end] for end, size in zip(ends.tolist(), (counts * what.dtype.itemsize).tolist(), strict=True)
    ]


def _as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
