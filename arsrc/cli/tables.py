"""What commands print: lines, tables (by `rich` on a terminal where it is installed, else as plain text), and JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

try:
    import rich.box
    import rich.console
    import rich.table
    import rich.text
except ImportError:  # an extra
    HAS_RICH = False
else:
    HAS_RICH = True

_GAP = "  "


def write_line(text: str = "") -> None:
    """Print one line; whatever does not print, or not here, is shown as an escape."""
    sys.stdout.write(printable(text) + "\n")


def write_bytes(data: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]], indent: str = "") -> None:
    """Print rows under the names of their columns; columns of numbers and amounts are aligned to the right.

    Args:
        columns: The names; none is printed where all are empty.
        rows: A value for each column.
        indent: In front of each line of plain text.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    are_right = [all(row[number][:1].isdigit() for row in cells) for number in range(len(columns))]
    if HAS_RICH and sys.stdout.isatty():
        _write_rich(columns, cells, are_right)
        return
    table = [list(columns), *cells]
    widths = [max(len(row[number]) for row in table) for number in range(len(columns))]
    for row in table if any(columns) else cells:
        aligned = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, are_right, strict=True)
        ]
        write_line((indent + _GAP.join(aligned)).rstrip())


def write_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and their values, one pair on a line."""
    write_table(("", ""), [(f"{name}:", value) for name, value in pairs])


def write_json(value: Any) -> None:
    """Print a value as JSON, on one line for each of its keys."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def write_error(text: str) -> None:
    """Print an error to standard error, where there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"arsrc: error: {text}\n")


def printable(text: str) -> str:
    """Return a text with escapes in place of what would steer a terminal, or what standard output cannot encode."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _write_rich(columns: Sequence[str], cells: Sequence[Sequence[str]], are_right: Sequence[bool]) -> None:
    box = rich.box.SIMPLE_HEAD if any(columns) else None
    table = rich.table.Table(box=box, show_header=any(columns), show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, is_right in zip(columns, are_right, strict=True):
        table.add_column(name, justify="right" if is_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(rich.text.Text, row))
    rich.console.Console().print(table)
