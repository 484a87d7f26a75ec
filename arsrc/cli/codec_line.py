"""The line of Python that reads records of some kind, from what a few of them hold."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from arsrc.cli import kinds
from arsrc.cli.image_heads import ImageHead, image_head
from arsrc.cli.kinds import ArrayHead, Kind, text_of
from arsrc.codecs.check import array_dtype
from arsrc.codecs.example_wire import Feature
from arsrc.errors import ArsrcTypeError
from arsrc.quoted import quoted

_INDENT = "    "
_WIDTH = 100  # of a line of fields; more stand on lines of their own
_NEARLY_ALL = 0.9  # of the records, and the others are bad ones


def codec_text(found: Sequence[Kind], are_equal: bool, max_bytes: int) -> str:
    """Return the codec of records, as text.

    Args:
        found: What some records are, at least one.
        are_equal: Whether all records have one length, as far as is known.
        max_bytes: Bytes of the longest one that is known.
    """
    if {kind.name for kind in alike(found)} == {kinds.TOKENS}:
        length = max_bytes // 4
        return f'Struct({{"tokens": ("int32", ({length},))}})' if are_equal else f'Ragged("int32", max_length={length})'
    return decoding(found) or ("Bytes()" if are_equal else f"Ragged(max_length={max_bytes})")


def alike(found: Sequence[Kind]) -> Sequence[Kind]:
    """Return those records that are of one kind, if nearly all are: the others are bad. Else all."""
    forms = [(kind.name, type(kind.value), isinstance(kind.value, dict) and not kind.value) for kind in found]
    form, count = collections.Counter(forms).most_common(1)[0]
    if count < _NEARLY_ALL * len(found):
        return found
    return [kind for kind, other in zip(found, forms, strict=True) if other == form]


def decoding(found: Sequence[Kind]) -> str:
    """Return the codec that decodes what nearly all records hold; empty: there is none, and they are bytes."""
    found = alike(found)
    name = found[0].name
    values = [_held(kind) for kind in found if kind.name == name]
    if len(values) < len(found):  # records of several kinds
        return ""
    if name == kinds.IMAGE:
        return _image(values)
    if name == kinds.NPY:
        return "Npy()" if _array(values) else ""
    if name in _FIELDS and all(isinstance(value, dict) for value in values):
        return _fields(*_FIELDS[name], values)
    return ""


def names_of_some(found: Sequence[Kind]) -> list[str]:
    """Return the names of features or fields that some records have and others have not, sorted."""
    held = [set(_held(kind)) for kind in found if isinstance(kind.value, dict)]
    return sorted(set().union(*held) - set.intersection(*held)) if held else []


def names_left_out(found: Sequence[Kind]) -> list[str]:
    """Return the names of what all records have and the codec has not, since it decodes no such values, sorted."""
    kind = found[0].name
    rows = [_held(one) for one in found if one.name == kind and isinstance(one.value, dict)]
    if kind not in _FIELDS or len(rows) < len(found):
        return []
    _, field = _FIELDS[kind]
    return sorted(name for name in _common(rows) if not name or field([row[name] for row in rows]) is None)


def _held(kind: Kind) -> Any:
    """Return what a record holds; a feature that stands there without a value is missing, as it is for the codec."""
    if kind.name != kinds.EXAMPLE:
        return kind.value
    return {name: feature for name, feature in kind.value.items() if feature.kind}


def _common(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names that all rows have."""
    return [name for name in rows[0] if all(name in row for row in rows)]


def _fields(codec: str, field: Callable[[list[Any]], str | None], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a codec of the fields that all rows have, but for those `field` does not know; empty if none is left."""
    texts = {name: field([row[name] for row in rows]) for name in _common(rows)}
    entries = [f"{quoted(name)}: {text}" for name, text in texts.items() if name and text is not None]
    if not entries:
        return ""
    line = f"{codec}({{{', '.join(entries)}}})"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{codec}({{", *(f"{_INDENT}{entry}," for entry in entries), "})"])


def _image(heads: Sequence[ImageHead]) -> str:
    first = heads[0]
    channels = max(head.channels for head in heads)
    shape = (first.height, first.width, channels)
    dtype = ', dtype="uint16"' if channels == 1 and all(head.bits == 16 for head in heads) else ""
    is_one = len({head[1:3] for head in heads}) == 1
    return f'Image({shape}, fit="{"exact" if is_one else "resize"}"{dtype})'


def _array(heads: Sequence[ArrayHead | None]) -> str | None:
    """Return what arrays are, as a field of Npz; None: not of one shape and dtype, or of one that is not decoded."""
    head = heads[0]
    if head is None or any(other != head for other in heads):
        return None
    try:
        array_dtype("info", head.dtype)
    except ArsrcTypeError:
        return None
    return f'("{head.dtype}", {head.shape})' if head.shape else f'"{head.dtype}"'


def _feature(features: Sequence[Feature]) -> str | None:
    """Return what a feature holds, as a field of TFExample; None: nothing that it decodes."""
    found, counts = {feature.kind for feature in features}, [len(feature.values) for feature in features]
    if len(found) > 1 or not any(counts):
        return None
    if (kind := found.pop()) != "bytes":
        return _numbers(kind, counts)
    return _blobs([value for feature in features for value in feature.values]) if set(counts) == {1} else None


def _numbers(dtype: str, counts: Sequence[int]) -> str:
    if len(set(counts)) > 1 or not counts[0]:
        return f'Ragged("{dtype}", max_length={max(*counts, 1)})'
    return f'"{dtype}"' if counts[0] == 1 else f'("{dtype}", ({counts[0]},))'


def _blobs(values: Sequence[bytes]) -> str:
    """Return what bytes hold that stand in a field."""
    heads = [head for value in values if (head := image_head(value)) is not None]
    if len(heads) == len(values):
        return _image(heads)
    sizes = {len(value) for value in values}
    if len(sizes) == 1 and not all(text_of(value) for value in values) and max(sizes):
        return f"Bytes({max(sizes)})"
    return f"Ragged(max_length={max(*sizes, 1)})"


def _value(values: Sequence[Any]) -> str | None:
    """Return what a value of JSON or MessagePack is, as a field of such a codec; None: nothing that is decoded."""
    if all(isinstance(value, str) for value in values):
        return f"Ragged(max_length={max(1, *(len(value.encode('utf-8', 'replace')) for value in values))})"
    if all(isinstance(value, bytes) for value in values):
        return _blobs(values)
    if not all(isinstance(value, list) for value in values):
        return f'"{dtype}"' if (dtype := _dtype(values)) else None
    items = [item for value in values for item in _flat(value)]
    if (dtype := _dtype(items)) is None:
        return None
    shapes = {shape for value in values if (shape := _shape(value)) is not None}
    if len(shapes) == 1 and 0 not in (shape := next(iter(shapes))) and all(_shape(value) for value in values):
        return f'("{dtype}", {shape})'
    return f'Ragged("{dtype}", max_length={max(1, *map(len, values))})' if not _are_nested(values) else None


def _dtype(values: Sequence[Any]) -> str | None:
    """Return the dtype that numbers fit; None: they are no numbers."""
    types = {type(value) for value in values}
    if types == {bool}:
        return "bool"
    if types == {int}:
        return "int64"
    return "float32" if types and types <= {int, float} else None


def _flat(value: Any) -> list[Any]:
    return [item for one in value for item in _flat(one)] if isinstance(value, list) else [value]


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of lists in lists; None: they are of several lengths."""
    try:
        return np.shape(value)
    except ValueError:
        return None


def _are_nested(values: Sequence[list[Any]]) -> bool:
    return any(isinstance(item, list) for value in values for item in value)


# The codecs of records that hold values by name, and what says which field reads a value.
_FIELDS: Mapping[str, tuple[str, Callable[[list[Any]], str | None]]] = {
    kinds.EXAMPLE: ("TFExample", _feature),
    kinds.JSON: ("Json", _value),
    kinds.MSGPACK: ("MsgPack", _value),
    kinds.NPZ: ("Npz", _array),
}
