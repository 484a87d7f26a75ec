"""docs/reference.md is what docs/make_reference.py makes of the docstrings, and nothing is lost on the way."""

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import arsrc

SCRIPT = Path(__file__).parent.parent / "docs" / "make_reference.py"


def script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script()


def test_the_page_is_what_the_docstrings_say_now():
    kept = MAKE.PAGE.read_text(encoding="utf-8")
    assert kept == MAKE.page(), "docs/reference.md is not up to date: run `make reference`"


def test_every_public_name_stands_in_the_page_once():
    public = {*dir(arsrc)} - {"codecs", "tfds"}
    public |= {f"codecs.{name}" for name in dir(arsrc.codecs)} | {f"tfds.{name}" for name in dir(arsrc.tfds)}
    assert sorted(MAKE.names()) == sorted(public)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("name", MAKE.names())
def test_an_entry_holds_every_word_of_the_docstring_in_its_order(name: str):
    told = iter(words("\n".join(MAKE.entry(name))))
    missing = [word for word in words(inspect.cleandoc(MAKE.found(name).__doc__)) if word not in told]
    assert not missing


@pytest.mark.parametrize("name", [name for name in MAKE.names() if MAKE.signature_of(name)])
def test_a_signature_has_a_type_for_each_parameter_and_a_default_for_those_that_have_one(name: str):
    target = MAKE.found(name)
    types, defaults, _ = MAKE.written_of_class(target) if inspect.isclass(target) else MAKE.written(target)
    given = inspect.signature(target).parameters.values()
    assert types.keys() >= {one.name for one in given}
    assert defaults.keys() & {one.name for one in given} == {one.name for one in given if one.default is not one.empty}


def test_types_and_defaults_are_those_of_the_source():
    assert "read_ahead_bytes: int = 256 * 2**20," in MAKE.signature("", arsrc.ReadOptions)
    assert MAKE.signature("peek", arsrc.peek) == "peek(config: AnyConfig, state: SourceState) -> Batch"


def test_what_markdown_would_take_for_its_own_is_kept_as_it_is():
    docstring = (
        "One line, 2**32 of x<y.\n\n>>> 1 + 1\n2\n\nArgs:\n    a: Text\n        goes on.\n\n    b: `*` is.\n\nBehind."
    )
    assert [*MAKE.markdown(docstring)] == [
        "One line, 2\\*\\*32 of x\\<y.",
        "```text\n>>> 1 + 1\n2\n```",
        "**Args**",
        "* `a`: Text goes on.\n* `b`: `*` is.",
        "Behind.",
    ]
