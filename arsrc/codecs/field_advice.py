"""What to do about a record that does not hold a field as it was declared."""

import difflib
from collections.abc import Iterable

_MAX_NAMES = 6


def for_missing(name: str, held: Iterable[str]) -> str:
    """Return what to do where a record has not a field, which is most often one of another spelling.

    Args:
        name: The field's.
        held: Names of what the record has instead.
    """
    fix = f"Where a record may be without it, say what stands for it: default={{{name!r}: ...}}."
    names = sorted(set(held))
    if name in names:
        return f"It stands there without a value. {fix}"
    if not names:
        return fix

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, name[:100].lower(), other[:100].lower()).ratio()

    if len(names) > _MAX_NAMES:
        nearest = sorted(names[:1000], key=likeness, reverse=True)[:_MAX_NAMES]
        shown = ", ".join(map(repr, nearest)) + f" and {len(names) - _MAX_NAMES} more"
    else:
        shown = ", ".join(map(repr, names))
    return f"The record has {shown}. {fix}"


def for_bytes(first: bytes, otherwise: str) -> str:
    """Return what to do where bytes are none of an array, of which these are the first, at least 12 where there are."""
    is_webp = first[:4] == b"RIFF" and first[8:12] == b"WEBP"
    if is_webp or first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")):
        return "The bytes are those of a picture: decode them with Image((height, width, channels))."
    return otherwise
