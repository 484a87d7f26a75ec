"""What tells codecs apart in other processes: code, and all that it reaches."""

import functools
import importlib
import itertools
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host.records import installed
from arsrc._host.records.codec_identity import describe
from arsrc.codecs import Map, Ragged

Load = Callable[..., Any]
_versions = itertools.count()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(source, **others)`: import `source` as module `m` anew, with other modules beside it; return it."""

    def load(source: str, /, **others: str) -> Any:
        folder = tmp_path / str(next(_versions))
        for name, text in {"m": source, **others}.items():
            file = folder / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
            for known in list(sys.modules):
                if known.split(".")[0] == name.split("/")[0]:
                    monkeypatch.delitem(sys.modules, known)
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module("m")

    return load


# One source a case, in which 2 becomes 3: what decodes is another function then.
REACHED = {
    "a number": "SCALE = 2\ndef fn(record): return record[0] * SCALE",
    "a text": "NAME = 'a2'\ndef fn(record): return record + NAME",
    "an array": "import numpy as np\nTABLE = np.arange(5000) * 2\ndef fn(record): return TABLE[record[0]]",
    "an array's shape": "import numpy as np\nTABLE = np.zeros(60).reshape(2, -1)\ndef fn(record): return TABLE",
    "an array's dtype": """
        import numpy as np
        TABLE = np.zeros(1, ("", "", "i4", "f4")[2])
        def fn(record): return TABLE
        """,
    "an array of objects": """
        import numpy as np
        TABLE = np.array(["a", 2], object)
        def fn(record): return TABLE[record[0]]
        """,
    "a dict of lists": "TABLE = {'a': [1, (2,)]}\ndef fn(record): return TABLE[record]",
    "a set": "ALLOWED = {'a', 'b', 2}\ndef fn(record): return record in ALLOWED",
    "a set of functions": "def one(): return 2\nALL = {one, len}\ndef fn(record): return [f() for f in ALL]",
    "a set of a function that uses it": """
        def one(): return len(ALL) * 2
        ALL = {one}
        def fn(record): return [f() for f in ALL]
        """,
    "a function": "def scaled(x): return x * 2\ndef fn(record): return scaled(record[0])",
    "a function's global": "SCALE = 2\ndef scaled(x): return x * SCALE\ndef fn(record): return scaled(record[0])",
    "a function's keyword default": "def scaled(x, *, by=2): return x * by\ndef fn(record): return scaled(record[0])",
    "a function's attribute": "def fn(record): return fn.scale\nfn.scale = 2",
    "functions that call each other": """
        def odd(n): return n > 0 and even(n - 1)
        def even(n): return n < 2 or odd(n - 1)
        def fn(record): return odd(len(record))
        """,
    "inner code": "SCALE = 2\ndef fn(record): return [(lambda x: x * SCALE)(byte) for byte in record]",
    "a class in a function": "SCALE = 2\ndef fn(record):\n    class C:\n        by = SCALE\n    return C",
    "a closure": "def make(by):\n    return lambda record: record[0] * by\nfn = make(2)",
    "a closure of a closure": """
        def make(by):
            def f(x): return x * by
            return lambda record: f(record[0])
        fn = make(2)
        """,
    "a partial": "import functools\ndef f(by, record): return by\nfn = functools.partial(f, 2)",
    "a global partial": "import functools\nf = functools.partial(pow, 2)\ndef fn(record): return f(3)",
    "a method of an object": """
        class C:
            def __init__(self, by): self.by = by
            def go(self, record): return self.by
        c = C(2)
        def fn(record): return c.go(record)
        """,
    "an object with slots": """
        class C:
            __slots__ = ("by",)
        c = C()
        c.by = 2
        def fn(record): return c.by
        """,
    "a list that has an attribute": """
        class C(list):
            pass
        c = C([1])
        c.by = 2
        def fn(record): return c.by
        """,
    "a dataclass": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class C:
            by: int = 2
        c = C()
        def fn(record): return c.by
        """,
    "a bound method": """
        class C:
            def __init__(self): self.by = 2
            def go(self, record): return self.by
        fn = C().go
        """,
    "a class": "class C:\n    def go(self): return 2\ndef fn(record): return C().go()",
    "a special method": "class C:\n    def __call__(self): return 2\nc = C()\ndef fn(record): return c()",
    "a base class": "class B:\n    by = 2\nclass C(B):\n    pass\ndef fn(record): return C.by",
    "a property": "class C:\n    @property\n    def by(self): return 2\ndef fn(record): return C().by",
    "a property's setter": """
        class C:
            by = property(lambda self: 1)
            @by.setter
            def by(self, value): self.x = 2
        def fn(record): return C().by
        """,
    "a cached property": """
        import functools
        class C:
            @functools.cached_property
            def by(self): return 2
        def fn(record): return C().by
        """,
    "a static method": "class C:\n    @staticmethod\n    def by(): return 2\ndef fn(record): return C.by()",
    "an inner class": "class C:\n    class D:\n        by = 2\ndef fn(record): return C.D.by",
    "a cached function": "import functools\n@functools.cache\ndef f(x): return x * 2\ndef fn(record): return f(1)",
    "a decorated function": """
        import contextlib
        @contextlib.contextmanager
        def f(): yield 2
        def fn(record):
            with f() as x: return x
        """,
    "an enum": "import enum\nclass E(enum.Enum):\n    A = 2\ndef fn(record): return E.A.value",
    "a pattern": "import re\nP = re.compile('a{2}')\ndef fn(record): return P.match(record)",
    "a method of a dict": "get = {'a': 2}.get\ndef fn(record): return get(record)",
    "a method of a struct": "import struct\ndef make(f): return lambda r: f(r)\nfn = make(struct.Struct('2h').unpack)",
    "a method of an array": "import numpy as np\ntake = (np.arange(9) * 2).take\ndef fn(record): return take(record)",
    "a method of a pattern": "import re\nfind = re.compile('a{2}').findall\ndef fn(record): return find(record)",
    "another method of a pattern": "import re\nfn = re.compile('a{2}').match",
    "a method of a class": "f = [0, 1, list.append, list.remove][2]\ndef fn(record): return f([record], record)",
    "which class's method": """
        f = [0, 1, str.__format__, str.__mod__][2].__get__("a")
        def fn(record): return f(record)
        """,
    "a cached function alone": "import functools\n@functools.lru_cache\ndef fn(record): return record[2]",
    "the size of a cache": "import functools\n@functools.lru_cache(2)\ndef fn(record): return record",
    "what stands in for a function": """
        import functools
        class C:
            def __init__(self, by):
                self.by = by
                functools.update_wrapper(self, len)
            def __call__(self, record): return self.by
        fn = C(2)
        """,
    "a decorator's function": """
        import functools
        def doubled(f):
            @functools.wraps(f)
            def g(record): return f(record) * 2
            return g
        @doubled
        def fn(record): return record
        """,
    "an attribute of a dict": "class D(dict): pass\nd = D(a=1)\nd.by = 2\ndef fn(record): return d.by",
    "what a dict lacks": "import collections\nd = collections.defaultdict(lambda: 2)\ndef fn(record): return d[record]",
    "what is behind a proxy": """
        import types
        class D(dict):
            def __missing__(self, key): return 2
        d = types.MappingProxyType(D())
        def fn(record): return d[record]
        """,
    "an attribute of a partial": "import functools\nfn = functools.partial(len)\nfn.by = 2",
    "an attribute of a static method": "f = staticmethod(len)\nf.by = 2\ndef fn(record): return f.by",
    "a named tuple": "import typing\nclass N(typing.NamedTuple):\n    by: int = 2\ndef fn(record): return N()",
    "a field's name": "import collections\nN = collections.namedtuple('N', 'a2 b')\ndef fn(record): return N(1, 1)",
    "a text of a class of its own": "class S(str): pass\ns = S('a2')\ndef fn(record): return s",
    "a field's type": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class C:
            a: "u2" = 1
        def fn(record): return [field.type for field in dataclasses.fields(C)]
        """,
    "a field's metadata": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class C:
            a: int = dataclasses.field(default=1, metadata={"by": 2})
        def fn(record): return dataclasses.fields(C)[0].metadata
        """,
    "what a dataclass keeps beside its fields": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class C:
            x: dataclasses.InitVar[int]
            def __post_init__(self, x): object.__setattr__(self, "by", x)
        c = C(2)
        def fn(record): return c.by
        """,
    "a class that is made by a function": """
        import dataclasses
        C = dataclasses.make_dataclass("C", [("x", int, 2)])
        def fn(record): return C()
        """,
    "a class that bears a package's name": """
        C = type("C", (), {"by": 2, "__module__": "numpy"})
        def fn(record): return C.by
        """,
    "a function that bears a package's name": """
        def f(record): return 2
        f.__module__, f.__qualname__ = "numpy", "sum"
        def fn(record): return f(record)
        """,
    "globals that bear a package's name": """
        scope = {"__name__": "numpy"}
        exec("by = 2\\ndef f(record): return by", scope)
        f = scope["f"]
        def fn(record): return f(record)
        """,
    "built-ins of its own": """
        scope = {"__builtins__": {"len": lambda record: 2}}
        exec("def fn(record): return len(record)", scope)
        fn = scope["fn"]
        """,
    "a metaclass": "class M(type):\n    def f(cls): return 2\nclass C(metaclass=M): pass\ndef fn(record): return C.f()",
    "who is registered with a class": """
        import abc
        class C(abc.ABC): pass
        [C.register(each) for each in (int, str, float)[:2]]
        def fn(record): return isinstance(record, C)
        """,
    "an argument of a type": """
        import typing
        T = typing.TypeVar("T")
        class B(typing.Generic[T]): pass
        class C(B[typing.Literal[2]]): pass
        def fn(record): return typing.get_args(C.__orig_bases__[0])
        """,
    "a flag": "import enum\nclass E(enum.Flag):\n    A = 1\n    B = 2\ne = E.A | E.B\ndef fn(record): return e",
    "a package's enum": "import re\ne = (0, 1, re.I, re.M)[2]\ndef fn(record): return e",
    "an attribute's getter": "import operator\nf = operator.attrgetter('a2')\ndef fn(record): return f(record)",
    "an argument of a method caller": "import operator\nfn = operator.methodcaller('a', x=2)",
    "a vectorized function": "import numpy as np\nf = np.vectorize(lambda x: x * 2)\ndef fn(record): return f(record)",
    "an array's order": "import numpy as np\nA = np.ones((3, 3), order='__CF'[2])\ndef fn(record): return A.ravel('K')",
    "what a dtype carries": "import numpy as np\nT = np.dtype('i4', metadata={'a': 2})\ndef fn(record): return T",
    "an array of fields": """
        import numpy as np
        A = np.array([(1, 2)], [("a", "i4"), ("b", object)])
        def fn(record): return A
        """,
    "a number of another package": "import ml_dtypes\nX = ml_dtypes.bfloat16(2)\ndef fn(record): return X",
    "the sign of zero": "X = (0, 0, 0.0, -0.0)[2]\ndef fn(record): return X",
    "the type of a number": "X = (0, 0, 1, True)[2]\ndef fn(record): return X",
    "a large number": "X = 2**20_000\ndef fn(record): return X",
    "a slice of lists": "X = slice([2])\ndef fn(record): return X",
    "an annotation": "def f(x: 'a2'): pass\ndef fn(record): return f.__annotations__",
    "a class's text": "class C:\n    'a2'\ndef fn(record): return C.__doc__",
    "a module's way to make attributes": """
        import sys, types
        other = types.ModuleType("other")
        exec("def __getattr__(name): return 2", vars(other))
        def fn(record): return other.SCALE
        """,
    "which of two that are alike": """
        def make(): return lambda record: record
        f, g = make(), make()
        table = {f: 1, g: 0}
        h = (0, 0, f, g)[2]
        def fn(record): return table[h]
        """,
    "whether two are one": """
        A, B = object(), object()
        def make(a, b): return lambda record: a is b
        fn = make(A, (0, 0, A, B)[2])
        """,
    "an attribute's name": "def fn(record): return record.part2",
    "a global's name": "a2 = a3 = len\ndef fn(record): return a2(record)",
    "a keyword's name": "def f(a2, b): return b\ndef fn(record): return f(b=1, a3=1)",
    "what is given by position alone": "def f(a, b): return a - b\nf2, f3 = f, len\ndef fn(record): return f2(1, b=1)",
}


@pytest.mark.parametrize("source", REACHED.values(), ids=REACHED)
def test_what_a_function_reaches_tells_it_apart(load: Load, source: str):
    first, again = describe(load(source).fn), describe(load(source).fn)
    assert first == again
    assert describe(load(source.replace("2", "3")).fn) != first


PARTS_OF_CODE = {
    "co_code": lambda code: code.co_code[:-2] * 2,
    "co_consts": lambda code: (*code.co_consts, 3),
    "co_names": lambda code: tuple(reversed(code.co_names)),
    "co_varnames": lambda code: tuple(reversed(code.co_varnames)),
    "co_argcount": lambda code: code.co_argcount - 1,
    "co_posonlyargcount": lambda code: 1,
    "co_kwonlyargcount": lambda code: code.co_kwonlyargcount - 1,
    "co_flags": lambda code: code.co_flags ^ 0x10000,
    "co_exceptiontable": lambda code: code.co_exceptiontable[:-4],
}


@pytest.mark.parametrize("part", PARTS_OF_CODE)
def test_each_part_of_its_code_that_decides_what_a_function_does_tells_it_apart(load: Load, part: str):
    fn = load("def fn(a, b, *, c):\n    try: return a.one.two\n    except ValueError: return b").fn
    first = describe(fn)
    fn.__code__ = fn.__code__.replace(co_filename="elsewhere", co_firstlineno=9, co_linetable=b"")
    assert describe(fn) == first
    fn.__code__ = fn.__code__.replace(**{part: PARTS_OF_CODE[part](fn.__code__)})
    assert describe(fn) != first


IN_MODULES = {
    "a constant": ("import other", "other.SCALE"),
    "a constant by a name of its own": ("import other as o", "o.SCALE"),
    "a constant that is imported": ("from other import SCALE", "SCALE"),
    "a function": ("import other", "other.scaled(1)"),
    "a module of a module": ("import package.inner", "package.inner.SCALE"),
    "a module from a module": ("from package import inner", "inner.SCALE"),
    "a module of modules that import each other": ("import other", "other.peer.other.peer.SCALE"),
    "a module that a package imports": ("import package", "package.other.SCALE"),
}


@pytest.mark.parametrize("inside", [False, True], ids=["above", "inside"])
@pytest.mark.parametrize(("statement", "use"), IN_MODULES.values(), ids=IN_MODULES)
def test_what_a_function_names_of_modules_tells_it_apart_and_the_rest_of_them_does_not(
    load: Load, statement: str, use: str, inside: bool
):
    top = "def fn(record):\n    {0}\n    return {1}" if inside else "{0}\ndef fn(record): return {1}"
    modules = {
        "peer": "import other\nSCALE = {0}",
        "other": "import peer, threading\nSCALE = {0}\nREST = {1}, threading.Lock()\ndef scaled(x): return x * SCALE",
        "package/__init__": "import other",
        "package/inner": "SCALE = {0}\nREST = {1}",
    }

    def described(*numbers: int) -> str:
        found = load(top.format(statement, use), **{name: text.format(*numbers) for name, text in modules.items()})
        importlib.import_module("package.inner")
        importlib.import_module("other")
        return describe(found.fn)

    first = described(2, 1)
    assert described(2, 4) == first
    assert described(3, 1) != first


def test_a_module_of_its_package_that_a_function_imports_tells_it_apart(load: Load):
    inner = "def fn(record):\n    from .constants import SCALE\n    from . import constants\n    return SCALE"

    def described(scale: int) -> str:
        load("", **{"package/__init__": "", "package/inner": inner, "package/constants": f"SCALE = {scale}"})
        found = importlib.import_module("package.inner")
        importlib.import_module("package.constants")
        return describe(found.fn)

    assert described(2) == described(2)
    assert described(2) != described(3)


def test_a_module_that_a_function_closes_over_tells_it_apart_by_what_is_named(load: Load):
    source = "import other\ndef make(o):\n    return lambda record: o.SCALE\nfn = make(other)"
    first, moved, same = (
        describe(load(source, other=other).fn) for other in ("SCALE = 2", "SCALE = 3", "SCALE = 2\nREST = 1")
    )
    assert first == same != moved


def test_what_a_function_does_not_reach_does_not_tell_it_apart(load: Load):
    source = "import threading\nSCALE = 2\ndef fn(record):\n    return record[0] * SCALE\n"
    first = describe(load(source).fn)
    assert (
        describe(load("\n# Moved.\n" + source + "REST = 3\nlock = threading.Lock()\ndef f(): return REST").fn) == first
    )


def test_where_a_class_stands_does_not_tell_it_apart_and_what_is_said_of_it_does(load: Load):
    source = "{1}class C:\n    '{0}'\n    __slots__ = ('x',)\n    x: {0}\n    y = 2\ndef fn(record): return C.y"
    first = describe(load(source.format("int", "")).fn)
    assert describe(load(source.format("int", "\n# Moved.\n")).fn) == first
    assert describe(load(source.format("str", "")).fn) != first  # fields(C) and the like read it


def test_what_a_program_defines_is_the_users_own_whoever_runs_it():
    texts = []
    for scale in (2, 3):
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(f"SCALE = {scale}\ndef fn(record): return SCALE", scope)
        texts.append(describe(scope["fn"]))
    assert texts[0] != texts[1]


@pytest.mark.parametrize("use", ["import lib", "from lib import f as g", "from lib import C", "from lib import c"])
def test_installed_packages_tell_apart_by_their_versions(load: Load, use: str, monkeypatch: pytest.MonkeyPatch):
    lib = """
        import threading
        __version__ = "{0}"
        def f(x): return x * {1}
        class C:
            lock = threading.Lock()
            by = {1}
            def go(self): return f(self.by)
        c = C()
        """

    def described(*parts: object) -> str:
        for known in ("lib", "site-packages"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        source = load("", **{"site-packages/lib": lib.format(*parts)})
        monkeypatch.syspath_prepend(str(Path(source.__file__).parent / "site-packages"))
        installed._with_version.cache_clear()
        found = load(f"{use}\ndef fn(record): return lib, g, C, c")
        return describe(found.fn)

    first = described("1.0", 2)
    assert described("1.0", 3) == first
    assert described("1.1", 2) != first


def test_numpy_and_the_like_are_not_looked_through(load: Load):
    source = """
        import json, math, re
        import jax
        import numpy as np
        from numpy import frombuffer, linalg
        def fn(record):
            np.float32(frombuffer(record)), np.add, linalg.norm(np.r_), jax.numpy.sum, json.loads, math.pi
        """
    start = time.perf_counter()
    text = describe(load(source).fn)
    assert time.perf_counter() - start < 1
    assert f"m.frombuffer: numpy.frombuffer (numpy {np.__version__})" in text.splitlines()
    assert f"m.np: numpy (numpy {np.__version__})" in text.splitlines()
    assert f"m.json: json (Python {sys.version_info.major}.{sys.version_info.minor})" in text.splitlines()
    assert len(text.splitlines()) == 7


@pytest.mark.parametrize(
    ("source", "used_by", "kind"),
    [
        ("import threading\nlock = threading.Lock()\ndef fn(record): return lock", "m.lock", "_thread.lock"),
        ("x = {'a': (n for n in 'b')}\ndef fn(record): return x", "m.x", "builtins.generator"),
        ("class C:\n    def __init__(self): self.f = open(__file__, 'rb')\nfn = C()", "m.C", "_io.BufferedReader"),
        ("import other\nx = [other]\ndef fn(record): return x", "m.x", "builtins.module"),
        ("x = {(n for n in 'b')}\ndef fn(record): return x", "m.x", "builtins.generator"),
        ("import numpy\nx = numpy.frompyfunc(lambda b: b + 1, 1, 1)\ndef fn(r): return x(r)", "m.x", "numpy.ufunc"),
        ("import random\nx = random.Random(2)\ndef fn(r): return x.random()", "m.x", "random.Random"),
        ("from random import random\ndef fn(r): return random()", "m.random", "random.Random"),
        ("import collections\nx = collections.deque()\ndef fn(r): return x", "m.x", "collections.deque"),
        ("import array\nclass A(array.array): pass\nx = A('i')\ndef fn(r): return x", "m.x", "m.A"),
        ("import json\nx = json.JSONDecoder().decode\ndef fn(r): return x(r)", "m.x", "_json.Scanner"),
        ("x = iter([2])\ndef fn(r): return x", "m.x", "builtins.list_iterator"),
        ("import numpy\nx = numpy.array(['a'], 'T')\ndef fn(r): return x", "m.x", "numpy.dtypes.StringDType"),
        ("import weakref\nx = weakref.ref(len)\ndef fn(r): return x", "m.x", "weakref.ReferenceType"),
        (
            "import functools\nx = functools.update_wrapper(functools.cache(lambda r: 2), len)\ndef fn(r): return x(r)",
            "m.x",
            "functools._lru_cache_wrapper",
        ),
        (
            "def make():\n    return lambda r: r\nx = {make(), make()}\ndef fn(r): return x, list",
            "m.x",
            "builtins.frozenset",
        ),
        ("x = object.__format__.__get__('a')\ndef fn(r): return x(r)", "m.x", "builtins.builtin_function_or_method"),
        ("import other\ndef fn(r): return getattr(other, 'x')", "m.other", "builtins.module"),
        ("import other\ndef fn(r):\n    o = other\n    return o.x", "m.other", "builtins.module"),
        ("def fn(r):\n    import other as o\n    return vars(o)", "o", "builtins.module"),
        ("def fn(r):\n    class C:\n        import other\n    return C.other.x", "other", "builtins.module"),
        ("import other\ndef fn(r): return other.__dict__['x']", "m.fn", "builtins.function"),
        ("def fn(r): return globals()['x']", "m.fn", "builtins.function"),
        ("def fn(r): return [eval(each) for each in r]", "m.fn", "builtins.function"),
        ("import sys\ndef fn(r): return sys.modules['other'].x", "m.fn", "builtins.function"),
        ("class B: pass\ndef fn(r): return B.__subclasses__()", "m.fn", "builtins.function"),
    ],
    ids=lambda case: case.replace("\n", "; "),
)
def test_what_cannot_be_told_apart_is_named_and_a_version_stands_for_it(
    load: Load, source: str, used_by: str, kind: str
):
    fn = load(source, other="").fn
    if not callable(fn):
        fn = functools.partial(lambda held, record: 1, fn)
    with pytest.raises(arsrc.ArsrcValueError, match=r"Map\(\.\.\., version=\.\.\.\).*in memory") as caught:
        describe(Map(fn, "uint8"))
    assert (caught.value.got["used_by"], caught.value.got["type"]) == (used_by, kind)
    describe(Map(fn, "uint8", version="1"))
    if hasattr(held := getattr(fn, "args", [None])[0], "f"):
        held.f.close()


@pytest.mark.parametrize(
    "source",
    [
        "from numpy import add\ndef fn(record): return add",
        "from scipy.special import expit\ndef fn(record): return expit",
        "x = [..., NotImplemented]\ndef fn(record): return x",
        "import typing\nT = typing.TypeVar('T')\nN = typing.NewType('N', int)\ndef fn(record): return T, N",
    ],
    ids=["a ufunc", "a ufunc of another package", "constants", "types"],
)
def test_what_its_name_tells_apart_is_no_error(load: Load, source: str):
    assert describe(load(source).fn) == describe(load(source).fn)


# As above: with a version, what a function holds counts all the same.
HELD = {
    "a partial": "import functools\ndef f(by, record): return by\nfn = functools.partial(f, 2)",
    "a keyword of a partial": "import functools\ndef f(record, by): return by\nfn = functools.partial(f, by=2)",
    "a partial of a partial": """
        import functools
        class F(functools.partial): pass
        def f(by, record): return by
        fn = F(functools.partial(f, [2]), x=1)
        """,
    "an object": """
        class C:
            def __init__(self): self.by, self.lock = 2, __import__("threading").Lock()
            def __call__(self, record): return self.by
        fn = C()
        """,
    "a bound method": """
        class C:
            __slots__ = "by"
            def go(self, record): return self.by
        c = C()
        c.by = 2
        fn = c.go
        """,
    "an object of a partial": """
        import functools, re
        fn = functools.partial(lambda pattern, record: pattern, re.compile("a{2}"))
        """,
    "a closure": "def make(by):\n    return lambda record: record[0] * by\nfn = make(2)",
    "a default": "import numpy as np\nfn = lambda record, by=np.arange(2): by",
    "a set of a partial": "import functools\nfn = functools.partial(max, {functools.partial(max, 2)})",
}


@pytest.mark.parametrize("source", HELD.values(), ids=HELD)
def test_with_a_version_a_function_is_known_by_what_it_holds_too(load: Load, source: str):
    first, again, other = (
        describe(Map(load(text).fn, "uint8", version="1")) for text in (source, source, source.replace("2", "3"))
    )
    assert first == again != other


def test_with_a_version_the_code_of_an_object_does_not_count(load: Load):
    source = """
        class C:
            def __init__(self, f): self.f = f
            def __call__(self, record): return 2
        def f(x): return 2
        fn = C(f)
        """
    first, other = (describe(Map(load(text).fn, "uint8", version="1")) for text in (source, source.replace("2", "3")))
    assert first == other


def test_with_a_version_a_function_is_known_by_its_name_and_the_version_whatever_its_code(load: Load):
    source = "SCALE = 2\ndef fn(record): return record[0] * SCALE\ndef other(record): return 1"
    first, second = load(source), load(source.replace("2", "3"))
    text = describe(Map(first.fn, "uint8", version="1"))
    assert describe(Map(second.fn, "uint8", version="1")) == text
    others = [
        Map(first.fn, "uint8", version="2"),
        Map(first.fn, "uint8"),
        Map(first.fn, "int8", version="1"),
        Map(first.other, "uint8", version="1"),
        Map(functools.partial(first.other), "uint8", version="1"),
    ]
    assert text not in map(describe, others)


def test_what_encodes_does_not_tell_elements_apart(load: Load):
    found = load("import threading\nlock = threading.Lock()\ndef fn(record): return 1\ndef back(x): return lock")
    assert describe(Map(found.fn, "uint8", found.back)) == describe(Map(found.fn, "uint8"))


def test_a_codec_of_ones_own_says_by_cache_key_what_tells_it_apart(load: Load):
    source = """
        import threading
        class Codec:
            def __init__(self, by): self.by, self.lock = by, threading.Lock()
            def cache_key(self): return self.by
        """
    one, other = (load(source).Codec(by) for by in (2, 3))
    assert describe(one) == describe(load(source).Codec(2)) != describe(other)


def test_large_tables_are_described_in_little_time(load: Load):
    source = "WORDS = {str(n): n for n in range(100_000)}\nORDER = list(WORDS)\ndef fn(record): return WORDS, ORDER"
    fn = load(source).fn
    start = time.perf_counter()
    assert describe(fn).count("\n") == 2
    assert time.perf_counter() - start < 2


def test_codecs_of_the_library_are_told_apart_by_their_fields():
    codecs = [
        Ragged(max_length=3),
        Ragged(max_length=4),
        Ragged("int8", max_length=3),
        Ragged(max_length=3, pad_value=1),
    ]
    assert len(set(map(describe, codecs))) == 4
    assert describe(codecs[0]) == describe(Ragged(max_length=3))


SCRIPT = """
import sys, types
package = types.ModuleType("arsrc")  # stands in for its __init__, which imports JAX
package.__path__ = [sys.argv[1]]
sys.modules["arsrc"] = package
sys.path.insert(0, sys.argv[2])
import m
from arsrc._host.records.codec_identity import describe
print(describe(m.fn), end="")
"""


@pytest.mark.processes
def test_descriptions_are_the_same_in_every_process(load: Load):
    source = """
        import enum, functools, re
        import numpy as np
        WORDS = frozenset(f"word-{n}" for n in range(100))
        def one(n): return {two, one} if n in {"a", "b", "c"} else WORDS
        def two(n): return one(n)
        class E(enum.IntFlag):
            A = 1
            B = 2
        class C:
            def __init__(self): self.words, self.me = {"x", b"y", 3, (1, "z")}, self
            def go(self): return E.A, np.float32(3), re.compile("a")
        c = C()
        @functools.lru_cache
        def fn(record): return c.go(), one("a"), two("b"), {"i", "j", "k"}
        """
    module = load(source)
    folder = str(Path(module.__file__).parent)
    texts = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SCRIPT, str(Path(arsrc.__file__).parent), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        texts.add(done.stdout)
    assert texts == {describe(module.fn)}


def test_chains_and_circles_of_functions_of_any_length_are_described(load: Load):
    chain = "\n".join(f"def f{n}(x): return f{n + 1}(x)" for n in range(1200))
    circle = "\n".join(f"def g{n}(x): return {' '.join(f'g{m}(x),' for m in range(30))}" for n in range(30))
    source = f"{chain}\ndef f1200(x): return 2\n{circle}\ndef fn(record): return f0(1), g0(1)"
    first = describe(load(source).fn)
    assert describe(load(source.replace("return 2", "return 3")).fn) != first


def linked(value: Any) -> Callable[[bytes], Any]:
    return lambda record: value


# How many times a value is put into another one, and how.
NESTED: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "lists in lists": (30_000, lambda value: [value]),
    "functions that close over functions": (2_000, linked),
    "partials of partials' arguments": (2_000, lambda value: functools.partial(len, value)),
    "lists that are met twice": (1_000, lambda value: [value, value]),
    "dicts and tuples that are met twice": (1_000, lambda value: {"a": (value, value), "b": value}),
    "sets that are met twice": (200, lambda value: frozenset({frozenset({value}), frozenset({value, 1})})),
}


@pytest.mark.parametrize(("depth", "around"), NESTED.values(), ids=NESTED)
def test_values_of_any_depth_are_told_apart(depth: int, around: Callable[[Any], Any]):
    texts = []
    for leaf in ("a", "b"):
        value: Any = leaf
        for _ in range(depth):
            value = around(value)
        texts.append(describe(linked(value)))
    assert texts[0] != texts[1]


def test_values_that_hold_themselves_are_told_apart_by_what_else_they_hold():
    def circle(*items: Any) -> list[Any]:
        links: list[Any] = [[item] for item in items]
        for link, following in zip(links, links[1:] + links[:1], strict=True):
            link.append(following)
        return links[0]

    circles = [circle("a"), circle("a", "b"), circle("b", "a"), circle("a", "a", "b"), circle(*"aab" * 100, "c")]
    texts = [describe(linked(each)) for each in circles]
    assert len({*texts}) == len(texts)
    # Nobody who goes round can tell these from those above.
    assert describe(linked(circle("a", "a"))) == texts[0]
    assert describe(linked(circle(*"ab" * 50))) == texts[1]


def test_a_cache_in_files_does_not_outlive_the_constant_that_its_function_uses(load: Load, tmp_path, write_records):
    path = write_records(tmp_path / "data", [bytes([n]) for n in range(10)])
    for scale in (2, 3, 2):
        codec = Map(
            load(f"import numpy as np\nSCALE = {scale}\ndef fn(r): return np.float32(r[0] * SCALE)").fn, "float32"
        )
        read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path / "cache"), read_ahead_bytes=0)
        config = ArrayRecordSourceConfig(path, 10, codec, cacheable=True, read=read)
        np.testing.assert_array_equal(arsrc.take(config, range(10)).data, np.arange(10) * scale)
        arsrc.close(config)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert arsrc.io_metrics(config)["records_read"] == 0
    arsrc.close(config)
