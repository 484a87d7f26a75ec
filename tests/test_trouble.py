"""Pages on what goes wrong quote messages, and what `explain` says, as the source has them."""

import ast
import re
from pathlib import Path

import pytest

import arsrc

DOCS = Path(__file__).parent.parent / "docs"
TABLES = {"trouble.md": "message", "tuning.md": "symptom"}  # by the heading of the column that quotes
PACKAGE = Path(arsrc.__file__).parent
FEWEST = 9  # characters of a message without what is filled in, or it says nothing


def texts() -> list[str]:
    """Every text in the source but for docstrings, with `{}` for what is filled in."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        nodes = [*ast.walk(ast.parse(file.read_text()))]
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found.append(re.sub(r"%[\d.]*[sdf]", "{}", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.append("".join(map(str, parts)))
    return found


def cells(page: str) -> list[str]:
    """The first column of a page's tables that quote."""
    pattern = rf"^\| {TABLES[page]} \|.*\n\|[-|]+\n((?:\|.*\n?)+)"
    tables = re.findall(pattern, (DOCS / page).read_text(), re.MULTILINE)
    return [row.split(" | ")[0] for table in tables for row in table.splitlines()]


def quoted(page: str) -> list[str]:
    """What a page quotes: what stands there in code."""
    return [text for cell in cells(page) for text in re.findall(r"`([^`]+)`", cell)]


TEXTS = texts()


def is_said(message: str) -> bool:
    """Whether a text of the source is such a message, `...` standing for anything."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize(("page", "message"), [(page, message) for page in TABLES for message in quoted(page)])
def test_what_a_page_quotes_is_a_text_of_the_source(page: str, message: str):
    assert len(message.replace("...", "").replace(" ", "")) >= FEWEST
    assert is_said(message)


def test_messages_are_quoted_in_each_row_and_many_of_them():
    assert all(cell.startswith("| `") for cell in cells("trouble.md"))
    assert len(quoted("trouble.md")) > 50
    assert len(quoted("tuning.md")) > 8


def test_what_nobody_says_is_found_out():
    assert is_said("the record has ... bytes, not ...")
    assert not is_said("the record has ... bytes, but not ...")
