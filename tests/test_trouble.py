"""docs/trouble.md quotes messages as the source has them."""

import ast
import re
from pathlib import Path

import pytest

import arsrc

PAGE = Path(__file__).parent.parent / "docs" / "trouble.md"
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


def rows() -> list[str]:
    """The rows of the page's tables of messages."""
    tables = re.findall(r"^\| message .*\n\|[-|]+\n((?:\|.*\n?)+)", PAGE.read_text(), re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def quoted() -> list[str]:
    """The messages of the page: what stands in code in the first column of these tables."""
    return [message for row in rows() for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


TEXTS = texts()


def is_said(message: str) -> bool:
    """Whether a text of the source is such a message, `...` standing for anything."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_the_page_quotes_is_one_of_the_source(message: str):
    assert len(message.replace("...", "").replace(" ", "")) >= FEWEST
    assert is_said(message)


def test_the_page_quotes_a_message_in_each_row_of_its_tables_of_messages():
    assert all(row.startswith("| `") for row in rows())
    assert len(rows()) > 50


def test_what_nobody_says_is_found_out():
    assert is_said("the record has ... bytes, not ...")
    assert not is_said("the record has ... bytes, but not ...")
