"""A text for what decodes records, the same in every process: it tells the caches of different codecs apart."""

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib.metadata
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from arsrc.errors import ArsrcValueError
from arsrc.own_code import ByNames, is_users

_PLAIN = {type(None), bool, int, float, complex, str, bytes, range, slice}

_BY_IDENTITY: Any = object.__eq__

# What a class holds that changes nothing of what it does, and differs between versions of Python.
_OF_NO_ACCOUNT = {"__dict__", "__weakref__", "__annotate__", "__annotate_func__", "_abc_impl"}

_LONG = 200  # characters, beyond which a hash stands for a text


def describe(codec: Any) -> str:
    """Return a text that is the same for equal codecs, and another one for others.

    A codec is told apart by what its `cache_key()` gives where it has one, else by its class and what it holds. Code
    counts with all that it reaches: functions by their code, defaults, closures, and the globals and attributes of
    modules that they name; classes by their members; objects by their class and what they would be pickled by. So on
    until installed packages, which count by name and version, as Python itself does.

    Raises:
        ArsrcValueError: There is something that cannot be told apart from others like it.
    """
    return _Description().whole(codec, _name(codec))


class _Description:
    """One description. What is equal to itself alone is described once, and is a number wherever it is met.

    Args:
        inside: Ids of the sets around it.
        by_names: Whether names stand for code, packages and what cannot be told apart. What a function holds still
            counts: bound arguments, defaults, closures, the fields of objects.
    """

    def __init__(self, inside: tuple[int, ...] = (), by_names: bool = False) -> None:
        self._inside = inside
        self._by_names = by_names
        self._at = ""  # name of what is being described
        self._numbers: dict[Any, int] = {}
        # Name, value, whether it is described as an object, and what names it in errors.
        self._met: list[tuple[str, Any, bool, str]] = []

    def whole(self, value: Any, name: str) -> str:
        """Return a text for a value and all that is met in it."""
        lines = []
        self._met.append((name, value, False, name))
        for name, value, is_object, used_by in self._met:  # and what is met on the way
            self._at = name
            try:
                text = self._object(value) if is_object else self._part(value, self._inside)
            except ArsrcValueError:  # of something in a set
                raise
            except Exception as error:
                if not self._by_names:
                    raise ArsrcValueError(
                        "cacheable",
                        f"the codec uses something that cannot be told apart from others like it ({error})",
                        "Say what elements it gives by Map(..., version=...), or by cache_key() of a codec of your "
                        "own, and change that with what it does; or raise ReadOptions.cache_bytes, so that the cache "
                        "stays in memory.",
                        type=_name(type(value)),
                        used_by=used_by,
                    ) from error
                text = _name(type(value))
            lines.append(f"{name}: {_short(text)}")
        return "\n".join(lines)

    def _number(self, name: str, value: Any, key: Any, is_object: bool) -> str:
        if key not in self._numbers:
            self._numbers[key] = len(self._met)
            # Which keeps it alive, and its id its own.
            self._met.append((name, value, is_object, self._at if is_object else name))
        return f"#{self._numbers[key]}"

    def _part(self, value: Any, inside: tuple[int, ...]) -> str:
        """Return a text for a value, in which objects are numbers."""
        kind = type(value)
        if kind in _PLAIN or isinstance(value, np.dtype):
            return repr(value)
        if kind is ByNames:
            return _Description(by_names=True).whole(value.function, _name(value.function))
        if id(value) in inside:
            return f"above {len(inside) - inside.index(id(value))}"
        inside = (*inside, id(value))
        if kind in (tuple, list):
            return repr(value) if _are_plain(value) else f"{kind.__name__}{self._parts(value, inside)}"
        if kind in (dict, types.MappingProxyType):
            keys, items = list(value), list(value.values())
            if kind is dict and _are_plain(keys) and _are_plain(items):
                return repr(value)
            return f"{kind.__name__}{self._parts(keys, inside)}{self._parts(items, inside)}"
        if kind in (set, frozenset):
            # Sorted by texts in which nothing depends on what was met before.
            texts = (
                repr(item) if type(item) in _PLAIN else _Description(inside, self._by_names).whole(item, self._at)
                for item in value
            )
            return f"{kind.__name__}({', '.join(sorted(texts))})"
        if kind in (np.ndarray, np.memmap) or isinstance(value, np.generic):
            return self._array(np.asarray(value), inside)
        if isinstance(value, types.CodeType):
            return self._code(value, inside)
        if isinstance(value, types.MethodType):
            return self._part((value.__func__, value.__self__), inside)
        if isinstance(value, types.CellType):
            # Of a module, what the function names of it is looked at with its globals.
            contents = _contents(value)
            return self._parts((one.__name__ if isinstance(one, types.ModuleType) else one for one in contents), inside)
        if isinstance(value, types.ModuleType) and (package := _package(value.__name__)):
            return value.__name__ if self._by_names else f"{value.__name__} ({package})"
        if package := _installed(value):
            return _name(value) if self._by_names else f"{_name(value)} ({package})"
        if kind.__eq__ is _BY_IDENTITY:
            return self._number(_name(value), value, id(value), True)
        return self._object(value, inside)

    def _parts(self, values: Iterable[Any], inside: tuple[int, ...]) -> str:
        return f"({', '.join(self._part(value, inside) for value in values)})"

    def _array(self, array: np.ndarray[Any, Any], inside: tuple[int, ...]) -> str:
        if array.dtype.hasobject:
            return f"{array.dtype}{array.shape}{self._part(array.tolist(), inside)}"
        raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.nbytes else b""
        return f"{array.dtype}{array.shape} {hashlib.sha256(raw).hexdigest()}"

    def _code(self, code: types.CodeType, inside: tuple[int, ...]) -> str:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        names = code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars
        return self._part((code.co_code, code.co_exceptiontable, code.co_consts, counts, names), inside)

    def _object(self, value: Any, inside: tuple[int, ...] | None = None) -> str:
        """Return a text for what is not made of other values alone."""
        part = functools.partial(self._part, inside=self._inside if inside is None else inside)
        if isinstance(value, types.FunctionType):
            held = value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__
            home = value.__globals__.get("__name__")
            if self._by_names:
                return f"{_name(value)} {part(held)}"
            if package := _package(home):  # made by what a package defines, a decorator perhaps
                return f"{_name(value)} {home}.{value.__code__.co_qualname} ({package}) {part(held)}"
            return f"{_name(value)} {part((value.__code__, *held))} {self._globals(value)}"
        if isinstance(value, type):
            if self._by_names:
                return _name(value)
            return f"{_name(value)} {part((value.__bases__, list(_members(value))))}"
        if isinstance(value, types.ModuleType):
            raise TypeError("a module of your own is held as a value")
        if callable(key := getattr(type(value), "cache_key", None)):
            return f"{_name(type(value))} {part(key(value))}"
        reduced = _reduced(value)
        if isinstance(reduced, str):  # a global name
            package, wrapped = _home(value, reduced), getattr(value, "__wrapped__", None)
            # What `typing` makes stands for types, and does nothing.
            if package is None and wrapped is None and type(value).__module__ != "typing" and not self._by_names:
                raise TypeError("nothing is seen of it but its name")
            return f"{_name(value)} {reduced} ({None if self._by_names else package}) {part((type(value), wrapped))}"
        return part((type(value), *reduced))

    def _globals(self, function: types.FunctionType) -> str:
        """Return the numbers of what a function reaches by names, other than its arguments."""
        codes = list(_codes(function.__code__))
        attributes = {name for code in codes for name in code.co_names}
        scope, home = function.__globals__, function.__globals__.get("__name__")
        steps = [step for code in codes for step in dis.get_instructions(code)]
        names = {step.argval for step in steps if "GLOBAL" in step.opname or step.opname == "LOAD_NAME"}
        found: list[Any] = [(f"{home}.{name}", scope[name], (id(scope), name)) for name in sorted(names & scope.keys())]
        imported = {step.argval for step in steps if step.opname == "IMPORT_NAME"}
        held = [module for name in sorted(imported) for module in _modules(name, scope.get("__package__"))]
        held += [content for cell in function.__closure__ or () for content in _contents(cell)]
        found += [(value.__name__, value, id(value)) for value in held if isinstance(value, types.ModuleType)]
        numbers, seen = [], set()
        for name, value, key in found:  # and what is found on the way
            if not isinstance(value, types.ModuleType) or _package(value.__name__):
                numbers.append(f"{name}={self._number(name, value, key, False)}")
            elif id(value) not in seen:
                seen.add(id(value))
                inner = vars(value)
                named = sorted(attributes & inner.keys())
                found += [(f"{value.__name__}.{each}", inner[each], (id(inner), each)) for each in named]
        return " ".join(numbers)


def _are_plain(values: Iterable[Any]) -> bool:
    return {*map(type, values)} <= _PLAIN


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _modules(name: str, package: str | None) -> Iterator[Any]:
    """Yield the modules that an import of `name` may mean inside a package, whatever number of dots it has."""
    parents = (package or "").split(".")
    for length in range(len(parents) + 1):
        if found := sys.modules.get(".".join(filter(None, [*parents[:length], name]))):
            yield found


def _contents(cell: types.CellType) -> list[Any]:
    """Return what a cell holds: one thing, or none."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _members(kind: type) -> Iterable[Any]:
    """Yield names and values of what a class does and holds, functions without what wraps them."""
    for name, member in sorted(vars(kind).items()):
        is_special = name.startswith("__") and name.endswith("__")
        if name in _OF_NO_ACCOUNT or (is_special and not hasattr(member, "__get__")):
            continue
        if isinstance(member, property):
            member = member.fget, member.fset, member.fdel
        elif isinstance(member, (classmethod, staticmethod)):
            member = type(member), member.__func__
        elif isinstance(member, functools.cached_property):
            member = functools.cached_property, member.func
        yield name, member


def _reduced(value: Any) -> str | tuple[Any, ...]:
    """Return what `value` would be pickled by, in plain containers."""
    by_kind = copyreg.dispatch_table.get(type(value))
    reduced = by_kind(value) if by_kind else value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return reduced
    return tuple(list(part) if isinstance(part, Iterator) else part for part in reduced)


def _installed(value: Any) -> str | None:
    """Return the package, and its version, of what can be found in one by its name; None for all else."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    package = _package(module)
    if package is None or not isinstance(name, str):
        return None
    found: Any = sys.modules.get(str(module))
    for step in name.split("."):
        found = getattr(found, step, None)
    # Not all classes lie under their names, but those that are made anew, around values, say so.
    return package if found is value or (isinstance(value, type) and "<locals>" not in name) else None


def _home(value: Any, name: str) -> str | None:
    """Return the package, and its version, of what some module of one has as `name`, as ufuncs do not say theirs."""
    homes = sorted(at for at, module in [*sys.modules.items()] if getattr(module, "__dict__", {}).get(name) is value)
    return next(filter(None, map(_package, homes)), None)


def _package(module: Any) -> str | None:
    """Return the installed package that a module belongs to, with its version; None: it is the user's own."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    if loaded is None or module == "__main__":
        return None
    top = module.partition(".")[0]
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if is_users(file) if file else top not in sys.stdlib_module_names:
        return None
    return _with_version(top)


@functools.cache
def _with_version(top: str) -> str:
    if top in sys.stdlib_module_names:
        return f"Python {sys.version_info.major}.{sys.version_info.minor}"
    version = getattr(sys.modules.get(top), "__version__", None)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = version or importlib.metadata.version(top)
    return f"{top} {version}"


def _name(value: Any) -> str:
    """Return the name of a function or class, else that of its class."""
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def _short(text: str) -> str:
    return text if len(text) <= _LONG else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
