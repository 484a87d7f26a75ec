"""What a record is, told by its bytes."""

import json
import re
import zipfile
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from arsrc.cli.image_heads import image_head
from arsrc.cli.msgpack_wire import value_of
from arsrc.codecs.example_wire import features_of

EXAMPLE, IMAGE, NPY, NPZ, PICKLE, JSON, TEXT, MSGPACK = (
    "tf.train.Example", "image", "npy", "npz", "pickle", "JSON", "text", "msgpack",
)  # fmt: skip
TOKENS, BYTES = "int32 tokens, as it seems", "bytes"

_HEAD_BYTES = 300
_LEAST_LIST_BYTES = 16  # a list of MessagePack of fewer bytes may be anything
_MOST_TOKEN = 2**21  # more than any vocabulary has
_LEAST_TOKENS = 4
_SPACES = frozenset("\t\n\r\f\v\b")


class ArrayHead(NamedTuple):
    """What stands in front of an array: the name of its dtype, and its shape."""

    dtype: str
    shape: tuple[int, ...]


class Kind(NamedTuple):
    """What a record is.

    Attributes:
        name: One of the names above.
        value: What was found in it: features by name, an `ImageHead`, what JSON and MessagePack hold, a text, tokens,
            an `ArrayHead`, those of an archive by name; else None.
    """

    name: str
    value: Any = None


def kind_of(record: bytes) -> Kind:
    """Return what a record is, as far as its bytes tell. Nothing in it is run: pickles are not unpickled."""
    if (head := image_head(record)) is not None:
        return Kind(IMAGE, head)
    if record.startswith(b"\x93NUMPY"):
        return Kind(NPY, _array_head(record))
    if record.startswith(b"PK\x03\x04") and b".npy" in record[:_HEAD_BYTES]:
        return Kind(NPZ, _array_heads(record))
    if record[:1] == b"\x80" and record[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and record.endswith(b"."):
        return Kind(PICKLE)
    if (text := text_of(record)) is not None:
        return _json(text) or Kind(TEXT, text)
    if features := features_of(record):
        return Kind(EXAMPLE, features)
    value = value_of(record)
    if isinstance(value, dict) or (value is not None and len(record) >= _LEAST_LIST_BYTES):
        return Kind(MSGPACK, value)
    if (tokens := _tokens(record)) is not None:
        return Kind(TOKENS, tokens)
    return Kind(BYTES)


def _array_head(record: bytes) -> ArrayHead | None:
    """Return what stands in front of an array; None: not what stands there for numbers."""
    found = re.search(rb"'descr': '([\w<>|=]+)', .*'shape': \(([\d, ]*)\)", record[:_HEAD_BYTES])
    try:
        return found and ArrayHead(np.dtype(found[1].decode()).name, tuple(map(int, re.findall(rb"\d+", found[2]))))
    except TypeError:  # there is no such dtype
        return None


def _array_heads(record: bytes) -> dict[str, ArrayHead | None]:
    """Return what stands in front of the arrays of an archive, by their names; nothing of one that is damaged."""
    heads = {}
    try:
        with zipfile.ZipFile(BytesIO(record)) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        heads[member.removesuffix(".npy")] = _array_head(file.read(_HEAD_BYTES))
    except Exception:  # of which `zipfile` has many
        return {}
    return heads


def text_of(data: bytes) -> str | None:
    """Return bytes as text; None: they are none, or steer a terminal."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    is_text = text.isprintable() or all(char.isprintable() or char in _SPACES for char in text)
    return text if text and is_text else None


def _json(text: str) -> Kind | None:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return Kind(JSON, json.loads(text))
    except (ValueError, RecursionError):
        return None


def _tokens(record: bytes) -> Any:
    if len(record) % 4 or len(record) < 4 * _LEAST_TOKENS:
        return None
    tokens = np.frombuffer(record, "<i4")
    return tokens if tokens.min() >= 0 and 0 < tokens.max() < _MOST_TOKEN else None
