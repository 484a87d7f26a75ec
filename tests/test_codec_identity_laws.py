"""Programs made at random: all that decides what they do tells them apart, and no process tells it otherwise."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import arsrc
from arsrc._host.records.codec_identity import describe

HEAD = """
import abc, collections, dataclasses, enum, functools, operator, re, struct, types, typing
import numpy as np

@dataclasses.dataclass(frozen=True)
class Held:
    value: object
    def method(self, x): return self.value, x

class Plain:
    def __init__(self, value): self.value = value
    def __call__(self, x): return self.value

class Slotted:
    __slots__ = ("value",)
    def __init__(self, value): self.value = value

class Table(dict): pass
Pair = collections.namedtuple("Pair", "a b")
def closed(value): return lambda x: value
def with_default(value): return lambda x, *, by=value: by
def with_attribute(value):
    def f(x): return f.value
    f.value = value
    return f
def looped(value):
    value = [value]
    value.append(value)
    return value
def attributed(value):
    table = Table(a=1)
    table.value = value
    return table
def decorated(value):
    @functools.wraps(len)
    def wrapper(x): return value
    return wrapper
def classed(value):
    class C:
        by = value
        @property
        def other(self): return value
    return C
"""

LEAVES = [
    "0", "1", "True", "None", "...", "1.0", "0.0", "-0.0", "1j", "float('nan')", "2**20000", "''", "'a'", "b'a'", "()",
    "[]", "{}", "set()", "frozenset()", "range(3)", "range(0, 3, 2)",
    "slice(1)", "len", "str.lower", "str.upper", "int",
    "np.uint8", "np.add", "np.dtype('i4')", "np.dtype('>i4')", "np.int32(1)", "np.int64(1)", "np.zeros(2)",
    "np.zeros((2, 1))", "np.zeros(2, 'i4')", "re.compile('a')", "re.compile('a', re.I)", "re.I", "struct.Struct('h')",
    "lambda x: x", "lambda x: x + 1", "lambda y: y", "closed", "Held", "'a'.join", "'b'.join", "object()", "abc", "re",
    "list[int]", "list[str]", "int | None", "typing.Any", "operator.itemgetter(1)", "operator.attrgetter('a')",
]  # fmt: skip

AROUND = [
    "[{}]", "({},)", "[1, {}]", "{{'a': {}}}", "{{'b': {}}}", "Pair({}, 1)", "Pair(1, {})", "Held({})",
    "Held({}).method",
    "Plain({})", "Slotted({})", "closed({})", "with_default({})", "with_attribute({})", "attributed({})", "looped({})",
    "decorated({})", "classed({})", "functools.partial(len, {})", "functools.partial(len, key={})", "dict(a={}).get",
    "[{}].index", "functools.cache(closed({}))", "types.MappingProxyType(dict(a={}))", "property(closed({}))",
    "types.MethodType(closed, {})", "frozenset([Pair(1, closed({}))])", "(lambda one: [one, one])({})",
    "np.array([{}, None], object)", "np.vectorize(closed({}))", "collections.defaultdict(closed({}))",
    "types.SimpleNamespace(a={})", "iter([{}])", "staticmethod(closed({}))", "type('C', (), dict(a={}))",
]  # fmt: skip

# Statements with a place for one of several, no two of which do the same.
STATEMENTS = [
    ("x = x {} G1", ["+", "-", "*", "//", "**", "|", "==", "<", "in", "is"]),
    ("x = x.{}", ["one", "two", "eval_", "x"]),
    ("x = x[{}]", ["0", "1", "-1", "'0'", "1.0", "True", "1:", ":1"]),
    ("x = f(x, {})", ["1", "by=1", "to=1", "*[1]", "**{'by': 1}"]),
    ("x = G{}", ["0", "1", "2"]),
    ("x = {}(x)", ["len", "str", "repr", "G2"]),
    ("x = (lambda y: {})(x)", ["y", "x", "y + 1", "G0", "(y, x)"]),
    ("x = [y for y in x if {}]", ["y", "x", "not y", "G1"]),
    ("G0 = {}", ["x", "1", "2"]),
    ("{} x: x = 1", ["if", "while", "for y in", "with"]),
    ("try: x = x[0]\n    except {}: x = 1", ["ValueError", "KeyError", "Exception", "(ValueError, KeyError)"]),
    ("try: x = x[0]\n    except ValueError: {}\n    else: x = 2", ["x = 1", "x = 2", "raise", "pass", "return x"]),
    ("try: x = x[0]\n    {}: x = 1", ["finally", "except", "except ValueError", "except* ValueError"]),
    ("try: {}\n    except ValueError: x = 3", ["x = x[0]; x = f(x)", "x = x[0]", "x = f(x)", "raise x"]),
    ("import {} as m\n    x = m.x", ["numpy", "math", "nowhere"]),
    ("from math import {} as m\n    x = m(x)", ["sin", "cos", "tan"]),
    ("class C:\n        by = {}\n    x = C", ["1", "2", "G0", "x"]),
    ("def g(y={}): return y\n    x = g()", ["1", "2", "x", "G1"]),
    ("def g(y: {} = 1): return y\n    x = g.__annotations__", ["int", "str", "'int'"]),
    ("x = {}", ["x, x", "None", "f'{x}'", "f'{x!r}'", "yield x", "not x", "-x", "+x"]),
    ("match x:\n        case {}: x = 1", ["1", "[1]", "{'a': 1}", "[1, *y]", "int()", "y if y"]),
    ("assert x, {}", ["1", "2", "x"]),
]  # fmt: skip

VALUES = st.lists(st.sampled_from(AROUND), max_size=4)


def nested(around: list[str], value: str) -> str:
    for each in around:
        value = each.format(value)
    return value


def program(*values: str, body: str = "return G0, G1, G2") -> str:
    names = "".join(f"G{number} = {value}\n" for number, value in enumerate(values))
    return f"{HEAD}\ndef f(x, by=1, to=2): return x, by, to\n{names}\ndef fn(x):\n    global G0\n    {body}\n"


def described(source: str) -> str:
    """What a program's `fn` is told apart by, or what keeps it from that."""
    module: Any = types.ModuleType("m")
    sys.modules["m"] = module
    try:
        exec(compile(source, "<program>", "exec"), vars(module))
        return describe(module.fn)
    except arsrc.ArsrcValueError as error:
        return f"refused {error.got}"
    finally:
        del sys.modules["m"]


SCRIPT = """
import json, sys, types
package = types.ModuleType("arsrc")  # stands in for its __init__, which imports JAX
package.__path__ = [sys.argv[1]]
sys.modules["arsrc"] = package
from arsrc._host.records.codec_identity import describe
for line in sys.stdin:
    sys.modules["m"] = module = types.ModuleType("m")
    exec(compile(json.loads(line), "<program>", "exec"), vars(module))
    try: text = describe(module.fn)
    except ValueError as error: text = f"refused {error.got}"
    print(json.dumps(text), flush=True)
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Any]:
    """`elsewhere(source)`: `described(source)` in another process, in which texts have other hashes."""
    command = [sys.executable, "-c", SCRIPT, str(Path(arsrc.__file__).parent)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(source: str) -> str:
            child.stdin.write(json.dumps(source) + "\n")
            child.stdin.flush()
            return str(json.loads(child.stdout.readline()))

        yield ask
        child.stdin.close()


@hypothesis.given(VALUES, st.lists(st.sampled_from(LEAVES), min_size=2, max_size=2, unique=True))
def test_what_is_held_tells_programs_apart(around: list[str], leaves: list[str]):
    first, other = (described(program(nested(around, leaf), "1", "2")) for leaf in leaves)
    assert first != other or first.startswith("refused")


@hypothesis.given(
    st.lists(st.sampled_from(AROUND), min_size=2, max_size=2, unique=True), VALUES, st.sampled_from(LEAVES)
)
def test_what_it_is_held_by_tells_programs_apart(kinds: list[str], around: list[str], leaf: str):
    first, other = (described(program(nested([kind, *around], leaf), "1", "2")) for kind in kinds)
    assert first != other or first.startswith("refused")


@hypothesis.given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=4), st.data())
def test_each_statement_tells_programs_apart(statements: list[tuple[str, list[str]]], data: st.DataObject):
    chosen = [data.draw(st.sampled_from(choices)) for _, choices in statements]
    at = data.draw(st.integers(0, len(statements) - 1))
    changed = [*chosen]
    changed[at] = data.draw(st.sampled_from(sorted({*statements[at][1]} - {chosen[at]})))
    texts = []
    for each in (chosen, changed):
        lines = [text.replace("{}", choice) for (text, _), choice in zip(statements, each, strict=True)]
        texts.append(described(program("1", "[2]", "closed(3)", body="\n    ".join([*lines, "return x"]))))
    assert texts[0] != texts[1]
    assert not texts[0].startswith("refused")


@pytest.mark.processes
@hypothesis.given(VALUES, st.sampled_from(LEAVES), st.sampled_from(LEAVES), st.sampled_from(STATEMENTS), st.data())
def test_a_program_is_the_same_in_every_process(
    elsewhere: Any, around: list[str], one: str, two: str, statement: tuple[str, list[str]], data: st.DataObject
):
    body = statement[0].replace("{}", data.draw(st.sampled_from(statement[1])))
    source = program(
        nested(around, one), nested(around, two), "{'a', 'b', (1, 'c')}", body=f"{body}\n    return G0, G1, G2"
    )
    assert described(source) == described("\n# Moved.\n" + source) == elsewhere(source)


@hypothesis.given(st.lists(st.sampled_from(["[{}]", "({},)", "[1, {}]", "{{'a': {}}}", "closed({})"]), max_size=4))
def test_equal_values_are_the_same_be_they_one_object_or_two(around: list[str]):
    value = nested(around, "'a'")
    shared, apart = f"(lambda one: [one, one])({value})", f"[{value}, {value}]"
    is_one = described(program(shared, "1", "2")) == described(program(apart, "1", "2"))
    assert is_one == ("closed({})" not in around)  # functions are equal to themselves alone
