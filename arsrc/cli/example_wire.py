"""What a `tf.train.Example` holds, read from its bytes: enough to say so, and no more.

    Example { Features features = 1; }    Features { map<string, Feature> feature = 1; }
    Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }

Every list has its values in field 1, numbers packed or one by one.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_KINDS = {1: "bytes", 2: "float32", 3: "int64"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Feature(NamedTuple):
    """A feature of one example.

    Attributes:
        kind: "bytes", "float32" or "int64"; empty where nothing is set.
        values: What it holds.
    """

    kind: str
    values: list[Any]


class _NoExampleError(ValueError):
    """The bytes are something else."""


def features_of(record: bytes) -> dict[str, Feature] | None:
    """Return the features by their names, sorted; None: the record is no example, or one without any."""
    found: dict[str, Feature] = {}
    try:
        for features in _messages(record):
            for entry in _messages(features):
                name, feature = _entry(entry)
                found[name] = feature
    except (_NoExampleError, UnicodeDecodeError):
        return None
    return dict(sorted(found.items())) or None


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield the number, the wire type and the value of each field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
            if wire == _LENGTH:
                size, at = _varint(data, at)
            if size < 0 or at + size > len(data) or not number:
                raise _NoExampleError
            value, at = data[at : at + size], at + size
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise _NoExampleError


def _messages(data: bytes) -> Iterator[bytes]:
    """Yield the values of field 1, which are bytes; there is no other field."""
    for number, wire, value in _fields(data):
        if (number, wire) != (1, _LENGTH):
            raise _NoExampleError
        yield value


def _entry(data: bytes) -> tuple[str, Feature]:
    name, feature = "", Feature("", [])
    for number, wire, value in _fields(data):
        if wire != _LENGTH or number not in (1, 2):
            raise _NoExampleError
        if number == 1:
            name = value.decode()
        else:
            feature = _feature(value)
    return name, feature


def _feature(data: bytes) -> Feature:
    kind, values = "", list[Any]()
    for number, wire, value in _fields(data):
        if wire != _LENGTH or number not in _KINDS:
            raise _NoExampleError
        kind = _KINDS[number]
        values = list(_values(kind, value))
    return Feature(kind, values)


def _values(kind: str, data: bytes) -> Iterator[Any]:
    for number, wire, value in _fields(data):
        if number != 1:
            raise _NoExampleError
        if kind == "bytes" and wire == _LENGTH:
            yield value
        elif kind == "float32" and wire in (_FIXED32, _LENGTH) and len(value) % 4 == 0:
            yield from struct.unpack(f"<{len(value) // 4}f", value)
        elif kind == "int64" and wire == _VARINT:
            yield _signed(value)
        elif kind == "int64" and wire == _LENGTH:
            at = 0
            while at < len(value):
                item, at = _varint(value, at)
                yield _signed(item)
        else:
            raise _NoExampleError


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
