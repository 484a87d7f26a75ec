"""What a record of MessagePack holds, read from its bytes: enough to say so, and no more."""

import struct
from typing import Any, NamedTuple

_MOST_DEPTH = 100
# First bytes of what has a size in front of it, and how many bytes that takes.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Extension(NamedTuple):
    """A value of a type that applications agree on.

    Attributes:
        code: Which.
        data: Its bytes.
    """

    code: int
    data: bytes


class _NoMsgPackError(ValueError):
    """The bytes are something else."""


def value_of(record: bytes) -> dict[str, Any] | list[Any] | None:
    """Return the map or list that a record is as a whole; None: it is none, or the keys of the map are no texts."""
    try:
        value, end = _value(record, 0, 0)
    except (_NoMsgPackError, UnicodeDecodeError, TypeError):  # the last of keys that cannot be any
        return None
    if end != len(record) or not value:
        return None
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    return value if isinstance(value, list) else None


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that begins at a place, and the place behind it."""
    if depth > _MOST_DEPTH:
        raise _NoMsgPackError
    first, at = _number(data, at, ">B")
    if first < 0x80 or first >= 0xE0:
        return first - (first >= 0xE0) * 0x100, at
    if first in _CONSTANTS:
        return _CONSTANTS[first], at
    if first in _NUMBERS:
        return _number(data, at, _NUMBERS[first])
    if first < 0xA0 or first in _LISTS or first in _MAPS:
        return _collection(data, at, depth, first)
    if 0xD4 <= first <= 0xD8:
        return _extension(data, at, 1 << first - 0xD4)
    if first < 0xC0:
        size = first & 0x1F
    elif (width := (_TEXTS | _BYTES | _EXTENSIONS).get(first)) is not None:
        size, at = _size(data, at, width)
    else:
        raise _NoMsgPackError
    if first in _EXTENSIONS:
        return _extension(data, at, size)
    found, at = _piece(data, at, size)
    return found if first in _BYTES else found.decode(), at


def _collection(data: bytes, at: int, depth: int, first: int) -> tuple[Any, int]:
    is_map = first < 0x90 or first in _MAPS
    size = first & 0x0F
    if first >= 0xA0:
        size, at = _size(data, at, (_LISTS | _MAPS)[first])
    items = list[Any]()
    for _ in range(size * (1 + is_map)):
        item, at = _value(data, at, depth + 1)
        items.append(item)
    return dict(zip(items[::2], items[1::2], strict=True)) if is_map else items, at


def _extension(data: bytes, at: int, size: int) -> tuple[Extension, int]:
    code, at = _number(data, at, ">b")
    found, at = _piece(data, at, size)
    return Extension(code, found), at


def _size(data: bytes, at: int, width: int) -> tuple[int, int]:
    found, at = _piece(data, at, width)
    return int.from_bytes(found, "big"), at


def _number(data: bytes, at: int, form: str) -> tuple[Any, int]:
    found, at = _piece(data, at, struct.calcsize(form))
    return struct.unpack(form, found)[0], at


def _piece(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise _NoMsgPackError
    return data[at : at + size], at + size
