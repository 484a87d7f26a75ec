"""What a `tf.train.Example` in any form holds, read from its bytes as `protobuf` reads them, without it.

    Example { Features features = 1; }    Features { map<string, Feature> feature = 1; }
    Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }

Every list has its values in field 1, numbers packed or one by one. Lists that come twice are joined, of two kinds and
of two entries of a name the last one counts, and fields that are not known are skipped. For single records: slow.
"""

import struct
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

_KINDS = {1: "bytes", 2: "float32", 3: "int64"}
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VALUE_BYTES, _SHORT_BYTES = 10, 5  # of varints: of values; of tags and lengths
_MAX_DEPTH = 100  # of messages and groups in each other, all together


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
    """Return the features by their names, sorted, perhaps none at all; None: the record is no example."""
    try:
        found = {name: _feature(parts) for name, parts in _entries(record)}
    except (_NoExampleError, UnicodeDecodeError):
        return None
    return {name: found[name] for name in _sorted(found)}


def feature_names(record: bytes) -> list[str]:
    """Return the names of a record's features, for errors; none if it is no example."""
    try:
        return _sorted({name for name, _ in _entries(record)})
    except (_NoExampleError, UnicodeDecodeError):
        return []


def _sorted(names: Collection[str | None]) -> list[str]:
    return sorted(name for name in names if name is not None)


def _entries(record: bytes) -> Iterator[tuple[str | None, list[bytes]]]:
    """Yield the name of each entry, None where it counts for nothing, and the messages its feature is merged of."""
    for number, wire, features in _fields(record, 0):
        for inner_number, inner_wire, entry in _fields(features, 1) if (number, wire) == (1, _LENGTH) else ():
            if (inner_number, inner_wire) == (1, _LENGTH):
                yield _entry(entry)


def _entry(data: bytes) -> tuple[str | None, list[bytes]]:
    name, parts, is_known = "", list[bytes](), True
    for number, wire, value in _fields(data, 2):
        if wire == _LENGTH and number == 1:
            name = value.decode()
        elif wire == _LENGTH and number == 2:
            parts.append(value)
        else:  # protobuf skips the whole entry then
            is_known = False
    return name if is_known else None, parts


def _feature(parts: list[bytes]) -> Feature:
    feature = Feature("", [])
    for part in parts:
        for number, wire, value in _fields(part, 3):
            if wire == _LENGTH and number in _KINDS:
                if feature.kind != _KINDS[number]:
                    feature = Feature(_KINDS[number], [])
                feature.values.extend(_values(feature.kind, value))
    return feature


def _values(kind: str, data: bytes) -> Iterator[Any]:
    for number, wire, value in _fields(data, 4):
        if number != 1:
            continue
        if kind == "bytes" and wire == _LENGTH:
            yield value
        elif kind == "float32" and wire in (_FIXED32, _LENGTH):
            if len(value) % 4:
                raise _NoExampleError
            yield from struct.unpack(f"<{len(value) // 4}f", value)
        elif kind == "int64" and wire == _VARINT:
            yield _signed(value)
        elif kind == "int64" and wire == _LENGTH:
            at = 0
            while at < len(value):
                item, at = _varint(value, at, _VALUE_BYTES)
                yield _signed(item)


def _fields(data: bytes, depth: int) -> Iterator[tuple[int, int, Any]]:
    """Yield the number, the wire type and the value of each field of a message that lies in so many others."""
    at, groups = 0, list[int]()
    while at < len(data):
        tag, at = _varint(data, at, _SHORT_BYTES)
        number, wire, value = tag >> 3, tag & 7, None
        if tag >> 32 or not (number or groups):
            raise _NoExampleError
        if wire == _GROUP:
            groups.append(number)
            if depth + len(groups) > _MAX_DEPTH:
                raise _NoExampleError
        elif wire == _GROUP_END:
            if not groups or groups.pop() != number:
                raise _NoExampleError
        else:
            value, at = _value(data, at, wire)
        if not groups:  # what lies in them is not known either
            yield number, wire, value
    if groups:
        raise _NoExampleError


def _value(data: bytes, at: int, wire: int) -> tuple[Any, int]:
    """Return the value of a field, and the place behind it."""
    if wire == _VARINT:
        return _varint(data, at, _VALUE_BYTES)
    size = _SIZES.get(wire, len(data))
    if wire == _LENGTH:
        size, at = _varint(data, at, _SHORT_BYTES)
    if at + size > len(data):
        raise _NoExampleError
    return data[at : at + size], at + size


def _varint(data: bytes, at: int, max_bytes: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    value = 0
    for place, byte in enumerate(data[at : at + max_bytes]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & (1 << 64) - 1, at + place + 1
    raise _NoExampleError


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
