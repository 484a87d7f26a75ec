"""A text for what decodes records, the same in every process: it tells the caches of different codecs apart."""

import abc
import collections
import contextlib
import enum
import functools
import gc
import hashlib
import operator
import re
import struct
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from arsrc._host.records.graph_digest import digests, sharing
from arsrc._host.records.installed import package, package_of
from arsrc._host.records.reached import contents, is_own_module, reached
from arsrc.errors import ArsrcValueError
from arsrc.own_code import ByNames

_FIX = (
    "Say what elements it gives by Map(..., version=...), or by cache_key() of a codec of your own, and change that "
    "with what it does; or raise ReadOptions.cache_bytes, so that the cache stays in memory."
)


def describe(codec: Any) -> str:
    """Return a text that is the same for equal codecs, and another one for others.

    A codec is told apart by what its `cache_key()` gives where it has one, else by its class and what it holds. Code
    counts with all that it reaches: functions by their code, defaults, closures, attributes, and what they name;
    classes by their members; objects by their class and what they hold. So on until installed packages, which count
    by name and version, as Python itself does. What is equal to itself alone, as a function is, counts as one thing
    wherever it is met; equal values are the same, be they one object or two.

    Raises:
        ArsrcValueError: There is something of which it is not known what tells it apart from others.
    """
    return _Description(_name(codec), codec).text()


class _Named(NamedTuple):
    name: str
    value: Any


class _Met(NamedTuple):
    value: Any  # which is kept alive, and its id its own
    by_names: bool  # names stand for code, packages and what cannot be told apart; what is held counts
    used_by: str


class _Description:
    """All that is met in a value, as a graph: no depth is too deep, and nothing is looked at twice."""

    def __init__(self, name: str, value: Any) -> None:
        self._met: list[_Met] = []
        self._numbers: dict[tuple[int, bool], int] = {}
        self._labels: list[str] = []
        self._parts: list[list[str | int]] = []
        self._lines: dict[str, str | int] = {}
        self._add((value,), False, name)
        for met in self._met:  # and what is met on the way
            try:
                label, parts = _look(met.value, met.by_names)
                parts = list(parts)
                at = _name(met.value) if _is_own(met.value) else met.used_by
            except Exception as error:
                if not met.by_names:
                    raise _refused(error, met) from error
                label, parts, at = _name(type(met.value)), [], met.used_by
            self._labels.append(f"by names, {label}" if met.by_names else label)
            self._parts.append([text for part in parts for text in self._add(part, met.by_names, at)])

    def _add(self, part: Any, by_names: bool, used_by: str) -> list[str | int]:
        """Return a part as it stands in the graph: a text, or a number."""
        kind = type(part)
        if atom := _ATOMS.get(kind):
            return [atom(part)]
        if kind is ByNames:
            return self._add(part.function, True, used_by)
        if kind is _Named:
            found = self._add(part.value, by_names, part.name)
            self._lines[part.name] = found[0]
            return [repr(part.name), *found]
        key = id(part), by_names
        if key not in self._numbers:
            self._numbers[key] = len(self._met)
            self._met.append(_Met(part, by_names, used_by))
        return [self._numbers[key]]

    def text(self) -> str:
        """Return the text: one line for the whole, and one for each that has a name, for those who compare two."""
        unordered = {number for number, met in enumerate(self._met) if type(met.value) is frozenset}
        texts = digests(self._labels, self._parts, unordered)
        alone = {n for n, met in enumerate(self._met) if not met.by_names and type(met.value).__eq__ is _BY_IDENTITY}
        try:
            shared = sharing(self._parts, texts, alone, unordered)
        except LookupError as error:
            raise _refused("it holds things that are alike", self._met[error.args[0]]) from error
        whole = hashlib.sha256(f"{texts[0]} {shared}".encode()).hexdigest()
        lines = [
            f"{name}: {at if isinstance(at, str) else self._labels[at] + (f' {texts[at]}' if self._parts[at] else '')}"
            for name, at in sorted(self._lines.items())
        ]
        return "\n".join([whole, *lines])


def _look(value: Any, by_names: bool) -> tuple[str, Iterable[Any]]:
    """Return what a value is, and what it is made of.

    Raises:
        Exception: It is not known what tells it apart.
    """
    kind = type(value)
    if kind in _BASES:
        return _name(kind), _BASES[kind](value)
    if version := package_of(value):
        name = value.__name__ if kind is types.ModuleType else _name(value)
        return (name if by_names else f"{name} ({version})"), ()
    if isinstance(value, types.ModuleType):
        if by_names:
            return value.__name__, ()
        raise TypeError("a module of your own is used as a value")
    if kind is types.FunctionType:
        return f"function {_name(value)}", _function(value, by_names)
    if isinstance(value, type):
        return f"class {_name(value)}", () if by_names else _class(value)
    if callable(key := getattr(kind, "cache_key", None)):
        return f"codec {_name(value)}", [key(value)]
    if isinstance(value, np.dtype):
        return "dtype", np.dtype.__reduce__(value)[1:]
    if isinstance(value, np.generic) and kind is value.dtype.type:
        return "scalar", [np.asarray(value)]
    if whole := _WHOLE.get(kind):
        return _name(kind), whole(value)
    base = next(base for base in kind.__mro__ if base in _BASES)
    return f"object {_name(kind)}", (kind, list(_BASES[base](value)), _attributes(value, base, by_names))


def _function(function: types.FunctionType, by_names: bool) -> Iterator[Any]:
    yield from (function.__name__, function.__defaults__, function.__kwdefaults__, _mapping(function.__dict__))
    closure = [contents(cell) for cell in function.__closure__ or ()]
    if by_names:
        yield closure
        return
    yield from (function.__code__, function.__doc__, _said(function.__annotations__))
    home = sys.modules.get(str(function.__globals__.get("__name__")))
    if home and vars(home) is function.__globals__ and (version := package_of(home)):
        yield from (f"{home.__name__} ({version})", closure)  # a decorator's, perhaps
        return
    # Of a module that it closes over, what it names is looked at.
    yield [[each.__name__ if is_own_module(each) else each for each in content] for content in closure]
    yield from (_Named(name, value) for name, value in sorted(reached(function).items()))


def _class(kind: type) -> Iterator[Any]:
    yield from (type(kind), kind.__name__, kind.__bases__)
    members = {name: member for name, member in sorted(vars(kind).items()) if name not in _OF_NO_ACCOUNT}
    if "_abc_impl" in members:
        members["_abc_impl"] = frozenset(known() for known in abc._get_dump(kind)[0])  # type: ignore[attr-defined]
    if issubclass(kind, enum.Enum):  # combinations of flags are added when they are first met
        known = vars(kind)["_member_map_"]
        values = vars(kind)["_value2member_map_"]
        members["_value2member_map_"] = {key: one for key, one in values.items() if one._name_ in known}
    yield _mapping(members)


def _attributes(value: Any, base: type, by_names: bool) -> dict[str, Any]:
    """Return what an object of a class that is made in Python holds beside what its built-in base does.

    Raises:
        TypeError: There is more in its memory.
    """
    kind = type(value)
    made = [each for each in kind.__mro__ if each not in base.__mro__]
    slots = [
        (f"{each.__qualname__}.{name}", member)
        for each in made
        if "__slots__" in vars(each)  # members of classes that are not made in Python need not be all there is
        for name, member in vars(each).items()
        if isinstance(member, types.MemberDescriptorType)
    ]
    has_dict = kind.__dictoffset__ > 0 or _POINTER <= -kind.__dictoffset__ <= kind.__basicsize__  # else before it
    pointers = len(slots) + (has_dict and not base.__dictoffset__)
    pointers += kind.__weakrefoffset__ > 0 and not base.__weakrefoffset__
    if kind.__basicsize__ != base.__basicsize__ + _POINTER * pointers and not by_names:
        raise TypeError("not all that it holds is seen")
    found = _mapping(object.__getattribute__(value, "__dict__")) if kind.__dictoffset__ else {}
    if isinstance(value, enum.Enum):
        found.pop("_inverted_", None)  # made when it is first asked for
    for name, member in slots:
        with contextlib.suppress(AttributeError):  # empty
            found[name] = member.__get__(value)
    return found


def _mapping(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values, in which annotations and docs are texts."""
    found = dict(members)
    for name in found.keys() & {"__annotations__", "__doc__"}:
        found[name] = _said(found[name])
    return found


def _said(value: Any) -> str:
    """Return what annotations and docs say: what they name does not count, nor where it lies in memory."""
    if isinstance(value, dict):
        return str({name: _said(each) for name, each in value.items()})
    return _name(value) if isinstance(value, type) else re.sub(" at 0x[0-9a-f]+", "", str(value))


def _by_name(member: Any) -> tuple[str, Any]:
    """Return the name of a built-in method or descriptor, and what has it by this name."""
    home = member.__self__ if hasattr(member, "__self__") else member.__objclass__
    if getattr(home, member.__name__) != member:
        raise TypeError("it is not found by its name")
    return member.__name__, home


def _cached(function: Any) -> Iterator[Any]:
    """Yield the function that is cached; `update_wrapper` may have written another one over it."""
    if not any(held is function.__wrapped__ for held in gc.get_referents(function)):
        raise TypeError("the function in it is not seen")
    yield from (function.__wrapped__, _mapping(vars(function) | {"cache_parameters": function.cache_parameters()}))


def _code(code: types.CodeType) -> Iterator[Any]:
    yield from (code.co_code, code.co_exceptiontable, code.co_consts, code.co_flags, code.co_name, code.co_qualname)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield from (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)


def _array(value: np.ndarray[Any, Any]) -> Iterator[Any]:
    array = np.asarray(value)
    yield from (array.dtype, array.shape, array.strides, array.flags.writeable)
    if array.dtype.names is not None:
        yield from (array[name] for name in array.dtype.names)
    elif array.dtype.hasobject:
        yield array.ravel().tolist()
    elif array.nbytes:
        raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        yield hashlib.sha256(raw).hexdigest()


# Values that are texts, not parts with a number.
_ATOMS: dict[type, Callable[[Any], str]] = {
    **dict.fromkeys((type(None), bool, str, bytes, bytearray, type(...), type(NotImplemented)), repr),
    int: hex,
    float: lambda value: f"float {struct.pack('>d', value).hex()}",
    complex: lambda value: f"complex {struct.pack('>dd', value.real, value.imag).hex()}",
}

# All there is of types that are known; of types derived from them there may be more.
_WHOLE: dict[type, Callable[[Any], Iterable[Any]]] = {
    types.CodeType: _code,
    types.MethodType: lambda method: (method.__func__, method.__self__),
    types.BuiltinMethodType: _by_name,
    type(re.compile("").match): _by_name,  # of those that know their class
    types.MethodWrapperType: _by_name,
    types.MethodDescriptorType: _by_name,
    types.WrapperDescriptorType: _by_name,
    types.GetSetDescriptorType: _by_name,
    types.MemberDescriptorType: _by_name,
    types.MappingProxyType: gc.get_referents,  # what it shows may be more than a dict
    types.GenericAlias: lambda alias: (alias.__origin__, alias.__args__, alias.__unpacked__),
    types.UnionType: lambda union: (union.__args__,),
    typing.TypeVar: lambda variable: (repr(variable), variable.__bound__, variable.__constraints__),
    classmethod: lambda member: (member.__func__, _mapping(vars(member))),
    staticmethod: lambda member: (member.__func__, _mapping(vars(member))),
    functools.cached_property: lambda member: (_mapping(vars(member) | {"lock": None}),),
    type(functools.cache(len)): _cached,
    operator.itemgetter: operator.itemgetter.__reduce__,
    operator.attrgetter: operator.attrgetter.__reduce__,
    operator.methodcaller: operator.methodcaller.__reduce__,
    type(_Met.value): lambda field: field.__reduce__(),  # of named tuples
    range: lambda numbers: (numbers.start, numbers.stop, numbers.step),
    slice: lambda numbers: (numbers.start, numbers.stop, numbers.step),
    re.Pattern: lambda pattern: (pattern.pattern, pattern.flags),
    struct.Struct: lambda layout: (layout.format,),
}

# What objects of classes that are made in Python hold beside attributes, by their built-in bases.
_BASES: dict[type, Callable[[Any], Iterable[Any]]] = {
    object: lambda _: (),
    int: lambda value: (int.__index__(value),),
    float: lambda value: (float.__float__(value),),
    str: lambda value: (str.__str__(value),),
    bytes: lambda value: (bytes.__bytes__(value),),
    tuple: tuple.__iter__,
    list: list.__iter__,
    dict: lambda value: (*dict.keys(value), *dict.values(value)),
    collections.defaultdict: lambda value: (value.default_factory, *dict.keys(value), *dict.values(value)),
    set: lambda value: (frozenset(set.__iter__(value)),),
    frozenset: lambda value: value if type(value) is frozenset else (frozenset(frozenset.__iter__(value)),),
    functools.partial: lambda value: (value.func, value.args, value.keywords, vars(value)),
    property: lambda value: (value.fget, value.fset, value.fdel, value.__doc__),
    np.ndarray: _array,
}

_BY_IDENTITY: Any = object.__eq__

_POINTER = struct.calcsize("P")  # bytes

# What a class holds that changes nothing of what it does: where it stands, and what is made of the rest.
_OF_NO_ACCOUNT = {"__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__annotations_cache__"}


def _refused(reason: object, met: _Met) -> ArsrcValueError:
    what = f"the codec uses something that cannot be told apart from others like it ({reason})"
    kind = type(met.value)
    used_by = _name(met.value) if kind is types.FunctionType else met.used_by
    return ArsrcValueError("cacheable", what, _FIX, type=_name(kind), used_by=used_by)


def _is_own(value: Any) -> bool:
    """Whether a value is the user's own: what it is made of is named by it in errors."""
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and package(module) is None


def _name(value: Any) -> str:
    """Return the name of a function or class, else that of its class."""
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"
