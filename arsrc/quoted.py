"""Texts as literals of Python's, for lines that users copy into their programs."""

import json


def quoted(text: str) -> str:
    """Return a text as Python reads it, in double quotes: `json.dumps` alone makes two characters of an emoji."""
    # Half of a pair, which cannot be written, has to stand as its number.
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
