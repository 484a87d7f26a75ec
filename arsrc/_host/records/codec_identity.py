"""A text for what decodes records, the same in every process: it tells the caches of different codecs apart."""

import functools
import hashlib
import pickle
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from arsrc.errors import ArsrcValueError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, np.dtype, np.generic)

_CONTAINERS = (tuple, list, set, frozenset, Mapping, np.ndarray)


def describe(value: Any, inside: tuple[int, ...] = ()) -> str:
    """Return a text that is the same for equal codecs, and another one for others.

    Functions and methods are told apart by name, code, defaults and what they close over, objects by their class, its
    methods and what they hold. Globals that a function uses are not seen.

    Args:
        value: A codec, or something in it.
        inside: Ids of the objects that hold it.

    Raises:
        ArsrcValueError: There is something that cannot be told apart from others like it.
    """
    if id(value) in inside:
        return f"above {len(inside) - inside.index(id(value))}"
    part = functools.partial(describe, inside=(*inside, id(value)))

    def listed(values: Iterable[Any]) -> str:
        return f"({', '.join(map(part, values))})"

    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return listed(value)
    if isinstance(value, (set, frozenset)):
        return f"set({', '.join(sorted(map(part, value)))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{part(key)}: {part(item)}' for key, item in value.items())}}}"
    if isinstance(value, types.CodeType):
        return f"{value.co_code.hex()} {value.co_names} {listed(value.co_consts)}"
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
        return f"{value.__module__}.{value.__qualname__} {listed(parts)}"
    if isinstance(value, types.MethodType):
        return listed([value.__func__, value.__self__])
    if isinstance(value, functools.partial):
        return f"partial{listed([value.func, value.args, value.keywords])}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__} {listed(_members(value))}"
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        content = part(array.tolist()) if array.dtype.hasobject else hashlib.sha256(array.tobytes()).hexdigest()
        return f"{array.dtype}{array.shape}{content}"
    if hasattr(value, "__qualname__") or isinstance(value, (types.ModuleType, np.ufunc)):  # not written in Python
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    return f"{part(type(value))} {part(vars(value)) if hasattr(value, '__dict__') else _pickled(value)}"


def _members(kind: type) -> list[Any]:
    """Return the functions of a class, by whatever it wraps them in, and its values."""
    found: list[Any] = []
    for one in kind.__mro__:
        for name, member in vars(one).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                found.append(function)
            elif not name.startswith("__") and isinstance(member, (*_PLAIN, *_CONTAINERS)):
                found.append((name, member))
    return found


def _pickled(value: Any) -> str:
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ArsrcValueError(
            "cacheable",
            f"the codec holds something that cannot be told apart from others like it ({error})",
            "Make it where it is used, or raise ReadOptions.cache_bytes so that the cache stays in memory.",
            holds=kind,
        ) from error
