"""`tf.train.Example` records written as `protobuf` writes them, if its maps are to be in order."""

from collections.abc import Sequence

from arsrc.codecs.example_heads import BYTES, FLOATS, INTEGERS
from arsrc.record_batch import RecordBatch

_TAGS = {BYTES: b"\x0a", FLOATS: b"\x12", INTEGERS: b"\x1a"}


def written(features: Sequence[tuple[str, int, RecordBatch]]) -> list[bytes]:
    """Return Examples of these features.

    Args:
        features: Names, in order; what each holds; its payload in each record.
    """
    names = [_nested(b"\x0a", name.encode()) for name, _, _ in features]
    return [
        _nested(
            b"\x0a",
            b"".join(
                _nested(b"\x0a", name + _nested(b"\x12", _value(kind, payloads[row])))
                for name, (_, kind, payloads) in zip(names, features, strict=True)
            ),
        )
        for row in range(len(features[0][2]))
    ]


def _value(kind: int, payload: bytes) -> bytes:
    # No numbers at all are an empty list; no bytes are a list of one value.
    return _nested(_TAGS[kind], _nested(b"\x0a", payload) if payload or kind == BYTES else b"")


def _nested(tag: bytes, content: bytes) -> bytes:
    length, rest = bytearray(), len(content)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"".join((tag, length, content))
