"""What stands before a payload in a `tf.train.Example` record: its head, parsed in Python, strictly.

    record: 0A length, entries, end to end
    entry:  0A length, 0A length key, 12 length, 0A | 12 | 1A (bytes, floats, integers) length, 0A length, payload

So the lengths of an entry all end where the payload does, but for the key's. An empty list ends with its own length,
and an entry without a value one level further out. If there are several bytes values, or none, all of the list is the
payload. This is how writers lay them out. Source: the format of protocol buffers, and the messages of
`tensorflow/core/example`.
"""

from typing import NamedTuple

ABSENT, BYTES, FLOATS, INTEGERS, UNSET, SEVERAL = range(6)
"""What a record holds of a feature: nothing, one bytes value, floats, integers, no value, several bytes values."""

MAX_HEAD_BYTES = 320
"""Bytes of a head that are looked at, and as many more as the longest name has that is asked for."""

ENTRY_TAG = 0x0A
"""In front of each entry."""
MAX_LENGTH_BYTES = 4
"""Bytes of a length, which is below 2**28 so."""

_TAG, _VALUE_TAG = ENTRY_TAG, 0x12  # of fields 1 and 2, with a length
_KINDS = {0x0A: BYTES, 0x12: FLOATS, 0x1A: INTEGERS}  # by the tags in a Feature


class Head(NamedTuple):
    """What stands before a payload.

    Attributes:
        kind: What the payload is.
        key: Name of the feature.
        content: The bytes.
        lengths: Begin and end, in `content`, of each length that depends on the payload's; that of the record first.
        total: Bytes of head and payload.
        is_fixed: Whether there can be no payload.
        record_bytes: Bytes of the record where this is the head of its first entry, with its own; else None.
    """

    kind: int
    key: bytes
    content: bytes
    lengths: tuple[tuple[int, int], ...]
    total: int
    is_fixed: bool
    record_bytes: int | None = None


def first_head(content: bytes) -> Head | None:
    """Return the head of the record that begins with `content`, and of its first entry; None if it has another form."""
    try:
        begin, record_bytes = _nested(content, 0, _TAG)
        entry = _entry_head(content[begin:])
    except _ERRORS:
        return None
    return entry._replace(
        content=content[: begin + len(entry.content)],
        lengths=((1, begin), *((begin + first, begin + end) for first, end in entry.lengths)),
        total=begin + entry.total,
        record_bytes=record_bytes,
    )


def entry_head(content: bytes) -> Head | None:
    """Return the head of the entry that begins with `content`, None if it has another form."""
    try:
        return _entry_head(content)
    except _ERRORS:
        return None


def value_head(content: bytes) -> Head | None:
    """Return the head of the bytes value, one of several, that begins with `content`; None if it has another form."""
    try:
        end, total = _nested(content, 0, _TAG)
    except _ERRORS:
        return None
    return Head(BYTES, b"", content[:end], ((1, end),), total, False)


class _OtherForm(Exception):
    pass


_ERRORS = (_OtherForm, IndexError, UnicodeDecodeError)


def _entry_head(content: bytes) -> Head:
    outer, total = _nested(content, 0, _TAG)
    begin, key_end = _nested(content, outer, _TAG)
    key = content[begin:key_end]
    key.decode()  # in other keys protobuf reads nothing
    inner, feature_end = _nested(content, key_end, _VALUE_TAG)
    lengths = [(1, outer), (key_end + 1, inner)]
    kind = UNSET
    ends = [feature_end]
    if inner < feature_end:
        tag = content[inner]
        if (kind := _KINDS.get(tag, ABSENT)) == ABSENT:
            raise _OtherForm
        end, list_end = _nested(content, inner, tag)
        lengths.append((inner + 1, end))
        ends.append(list_end)
        inner, payload_end = _nested(content, end, _TAG) if end < list_end else (end, end)
        if kind == BYTES and (end == list_end or payload_end != list_end):
            kind, inner = SEVERAL, end
        elif end < list_end:
            lengths.append((end + 1, inner))
            ends.append(payload_end)
    if any(end != total for end in ends):
        raise _OtherForm
    return Head(kind, key, content[:inner], tuple(lengths), total, len(lengths) < 4 and kind != SEVERAL)


def _nested(content: bytes, begin: int, tag: int) -> tuple[int, int]:
    """Return where what stands behind a tag and its length begins and ends.

    Raises:
        IndexError: `content` ends before.
        _OtherForm: There is another tag, or a length is too long.
    """
    if content[begin] != tag:
        raise _OtherForm
    length = content[begin + 1]
    if length < 0x80:
        return begin + 2, begin + 2 + length
    length &= 0x7F
    for place in range(1, MAX_LENGTH_BYTES):
        byte = content[begin + 1 + place]
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            end = begin + 2 + place
            return end, end + length
    raise _OtherForm
