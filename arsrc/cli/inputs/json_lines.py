"""JSON lines: one JSON value on each line."""

import json
import re
from collections.abc import Iterable, Iterator

from arsrc.cli.inputs.blocks import blocks_within
from arsrc.cli.inputs.damage import damage

_MARK = b"\xef\xbb\xbf"  # of UTF-8, as some editors put in front
_FIX = "Each line holds one JSON value, in UTF-8."
_ARRAY = "is a JSON array, not JSON lines"
_LINES = "Write each of its items on a line of its own, by json.dumps say."


def read(path: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file, which may be compressed by gzip, without their ends, some at a time.

    Empty lines are passed over.

    Raises:
        ArsrcReadError: A line is no JSON, or all is one array of maps.
    """
    position = number = 0
    may_be_array = not re.search(r"\.(jsonl|ndjson)\b", path)
    for lines in _lines(blocks_within(path)):
        records: list[bytes] = []
        for line in lines:
            number += 1
            line = (line.removeprefix(_MARK) if number == 1 else line).strip()
            if line:
                _check(path, line, position + len(records), number)
                may_be_array = may_be_array and re.match(rb"\[\s*\{", line) is not None
                records.append(line)
        position += len(records)
        if records:
            yield records
    if position == 1 and may_be_array:
        raise damage(path, _ARRAY, _LINES)


def _check(path: str, line: bytes, position: int, number: int) -> None:
    constants: list[str] = []  # that Python writes for numbers which JSON has not; other readers refuse them
    try:
        json.loads(line.decode(), parse_constant=constants.append)
    except (ValueError, RecursionError) as error:
        if number == 1 and line.startswith(b"[") and line.endswith((b"[", b"{", b",")):
            raise damage(path, _ARRAY, _LINES) from error
        raise damage(path, f"a line is no JSON ({error})", _FIX, position=position, line=number) from error
    if constants:
        raise damage(path, f"a line is no JSON ({constants[0]} is none)", _FIX, position=position, line=number)


def _lines(source: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines that end in each block, and the last one."""
    pieces: list[bytes] = []  # of a line that is longer than a block
    for block in source:
        first, *rest = block.split(b"\n")
        pieces.append(first)
        if rest:
            yield [b"".join(pieces), *rest[:-1]]
            pieces = rest[-1:]
    yield [b"".join(pieces)]
