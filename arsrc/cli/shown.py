"""Records, and what is in them, as a person reads them."""

import json
import string
from collections.abc import Iterator, Sequence
from typing import Any

from arsrc.amounts import counted, in_bytes
from arsrc.cli import kinds
from arsrc.cli.image_heads import ImageHead, image_head
from arsrc.cli.kinds import Kind, text_of
from arsrc.cli.msgpack_wire import Extension
from arsrc.codecs.example_wire import Feature

_MOST_LINES = 16  # of a record
_MOST_CHARACTERS = 100  # of a value
_MOST_VALUES = 8  # of a list
_BYTES_A_LINE = 16
_GLYPHS = frozenset((string.ascii_letters + string.digits + string.punctuation + " ").encode())


def described(kind: Kind) -> str:
    """Return what a record is, in some words."""
    if kind.name == kinds.IMAGE:
        return image_text(kind.value)
    if kind.name == kinds.EXAMPLE:
        return f"{kind.name} of {counted(len(kind.value), 'feature')}"
    if kind.name == kinds.NPY and kind.value:
        return f"{kind.name}, {kind.value.dtype} {kind.value.shape}"
    if kind.name == kinds.PICKLE:
        return "pickle, which was not unpickled: that would run code from the file"
    return kind.name


def image_text(head: ImageHead) -> str:
    """Return what an image is, in some words."""
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(head.channels, f"{head.channels} channels")
    return f"{head.format} image, {head.height} x {head.width} {colours}{', 16 bit' if head.bits == 16 else ''}"


def feature_row(name: str, feature: Feature) -> tuple[str, str, str, str]:
    """Return the name of a feature, its kind, how many values it has, and the first of them as text."""
    return name, feature.kind or "not set", f"{len(feature.values):,}", _values(feature.values)


def lines_of(record: bytes, kind: Kind) -> Iterator[str]:
    """Yield the lines that show a record which is no example."""
    if kind.name == kinds.TEXT:
        yield from _few(kind.value.splitlines() or [""])
    elif kind.name in (kinds.JSON, kinds.MSGPACK):
        text = json.dumps(kind.value, indent=2, ensure_ascii=False, default=_value)
        yield from _few(text.splitlines())
    elif kind.name == kinds.TOKENS:
        yield _values(kind.value[: _MOST_VALUES + 1].tolist(), len(kind.value))
    elif kind.name != kinds.IMAGE:
        yield from hex_dump(record)


def hex_dump(data: bytes) -> Iterator[str]:
    """Yield the first bytes, some to a line: where they stand, as numbers and as characters."""
    for at in range(0, min(len(data), _MOST_LINES * _BYTES_A_LINE), _BYTES_A_LINE):
        line = data[at : at + _BYTES_A_LINE]
        text = "".join(chr(byte) if byte in _GLYPHS else "." for byte in line)
        yield f"{at:06x}  {line.hex(' '):<{3 * _BYTES_A_LINE - 1}}  {text}"
    if len(data) > _MOST_LINES * _BYTES_A_LINE:
        yield f"... ({in_bytes(len(data))} in all)"


def _few(lines: Sequence[str]) -> Iterator[str]:
    yield from (_cut(line) for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"... ({counted(len(lines), 'line')} in all)"


def _values(values: Sequence[Any], num_values: int | None = None) -> str:
    num_values = len(values) if num_values is None else num_values
    texts = [_value(value) for value in values[:_MOST_VALUES]]
    text = texts[0] if num_values == 1 else f"[{', '.join(texts)}{', ...' if num_values > _MOST_VALUES else ''}]"
    return _cut(text)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Extension):
        return f"extension {value.code} of {in_bytes(len(value.data))}"
    if not isinstance(value, bytes):
        return str(value)
    if (head := image_head(value)) is not None:
        return f"{image_text(head)}, {in_bytes(len(value))}"
    if (text := text_of(value)) is not None:
        return repr(_cut(text))
    return f"{in_bytes(len(value))}: {value[:8].hex(' ')}{' ...' if len(value) > 8 else ''}" if value else "0 bytes"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 4]} ..."
