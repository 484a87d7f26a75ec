"""What the code of a function reaches by names: globals, built-ins, and attributes of the user's own modules."""

import collections
import dis
import sys
import types
from collections.abc import Iterator
from typing import Any

from arsrc._host.records.installed import package_of

_Steps = list[tuple[str, Any]]  # operations and what they are about

_SILENT = {"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL"}
_OF_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_OF_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
# By these, code finds what it does not name.
_UNSEEN = {"__globals__", "__import__", "__subclasses__", "eval", "exec", "globals", "import_module"}


def reached(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function names, other than its own variables, by full names; `no ...` is not there.

    A module of the user's own counts by what is named of it; it is there as itself where that cannot be seen.

    Raises:
        TypeError: The function uses something that finds what it does not name.
    """
    scope, found = function.__globals__, dict[str, Any]()
    builtins: dict[str, Any] = getattr(function, "__builtins__")  # noqa: B009  (typeshed has none before 3.13)
    codes = [function.__code__]
    for code in codes:  # and those inside
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    if unseen := _UNSEEN.intersection(name for code in codes for name in code.co_names):
        raise TypeError(f"what {min(unseen)} finds is not seen")
    bodies = list(map(_steps, codes))
    modules = collections.defaultdict[str, list[Any]](list)  # the user's own, by the variables that hold them
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        modules[name] += filter(is_own_module, contents(cell))
    for steps in bodies:
        for at in (at for at, (operation, _) in enumerate(steps) if operation == "IMPORT_NAME"):
            for variable, name, values in _imported(steps, at, scope):
                if variable and any(map(is_own_module, values)):
                    modules[variable] += values
                else:
                    found |= _entry(name, values)
    for code, steps in zip(codes, bodies, strict=True):
        cells = {*code.co_cellvars, *code.co_freevars}
        for at, (operation, name) in enumerate(steps):
            if operation in _OF_GLOBALS:
                values = [each[name] for each in (scope, builtins) if name in each]
                found |= _followed(f"{scope.get('__name__')}.{name}", values[:1], steps, at)
            # A cell that is given to an inner function is no use of what it holds.
            elif (operation.startswith("LOAD_FAST") and name not in cells) or operation in _OF_CELLS:
                for module in modules.get(name, ()):
                    found |= _followed(name, [module], steps, at)
    return found


def is_own_module(value: Any) -> bool:
    """Whether a value is a module that belongs to no installed package."""
    return isinstance(value, types.ModuleType) and package_of(value) is None


def contents(cell: types.CellType) -> list[Any]:
    """Return what a cell holds: one thing, or none."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _steps(code: types.CodeType) -> _Steps:
    steps: _Steps = []
    for step in dis.get_instructions(code):
        if "_FAST_" in step.opname and isinstance(step.argval, tuple):  # two at once, since Python 3.13
            ends = step.opname.startswith("LOAD"), not step.opname.endswith("STORE_FAST")
            steps += [
                ("LOAD_FAST" if is_load else "STORE_FAST", name)
                for is_load, name in zip(ends, step.argval, strict=True)
            ]
        elif step.opname not in _SILENT:
            steps.append((step.opname, step.argval))
    return steps


def _imported(steps: _Steps, at: int, scope: dict[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield what an import statement binds: local variables, or "", full names, and each one's value, or none."""
    (_, level), (_, names), (_, name) = steps[at - 2 : at + 1]
    try:
        base = __import__(name, scope, None, names, level)
    except ImportError:
        yield "", name, []
        return
    name, values, end = base.__name__, [base], "POP_TOP" if names else "STORE_"
    while not steps[at][0].startswith(end):
        at += 1
        operation, target = steps[at]
        if operation == "IMPORT_FROM":
            name, values = f"{base.__name__}.{target}", _attribute(base, target)
            base = base if names or not values else values[0]  # import a.b as c
        elif operation.startswith("STORE_"):
            yield target if operation in ("STORE_FAST", "STORE_DEREF") else "", name, values


def _followed(name: str, values: list[Any], steps: _Steps, at: int) -> dict[str, Any]:
    """Return what is loaded by a step, or, of a module of the user's own, by the attributes that are loaded next."""
    while values and is_own_module(values[0]) and steps[at + 1][0] in ("LOAD_ATTR", "LOAD_METHOD"):
        at += 1
        name, values = f"{values[0].__name__}.{steps[at][1]}", _attribute(values[0], steps[at][1])
    if values and values[0] is sys and steps[at + 1][1] == "modules":
        raise TypeError("what sys.modules holds is not seen")
    return _entry(name, values)


def _attribute(module: types.ModuleType, name: str) -> list[Any]:
    """Return the attribute of a module, or what makes it, or nothing."""
    if not is_own_module(module):
        return [getattr(module, name)] if hasattr(module, name) else []
    for found, key in ((vars(module), name), (sys.modules, f"{module.__name__}.{name}")):
        if key in found:
            return [found[key]]
    if hasattr(type(module), name):
        raise TypeError(f"what {name} of a module holds is not seen")
    return [vars(module)["__getattr__"]] if "__getattr__" in vars(module) else []


def _entry(name: str, values: list[Any]) -> dict[str, Any]:
    return {name: values[0]} if values else {f"no {name}": None}
