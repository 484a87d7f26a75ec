"""What belongs to installed packages: it is known by its name and the package's version."""

import contextlib
import functools
import importlib.metadata
import sys
import types
from typing import Any

import numpy as np

from arsrc.own_code import is_users

_MADE_BY_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE: other types exist once, and tell their names


def package_of(value: Any) -> str | None:
    """Return the package, and its version, of a module of one or what can be found there by its name; else None."""
    if isinstance(value, types.ModuleType):
        return package(value.__name__) if sys.modules.get(value.__name__) is value else None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, np.ufunc):
        module, name = _home_of(value), value.__name__
    version = package(module)
    if version is None or not isinstance(name, str):
        return None
    found: Any = sys.modules[str(module)]
    for step in name.split("."):
        found = getattr(found, step, None)
    return version if found is value or (isinstance(value, type) and not value.__flags__ & _MADE_BY_PYTHON) else None


def package(module: Any) -> str | None:
    """Return the installed package that a loaded module belongs to, with its version; None: it is the user's own."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    if loaded is None or module == "__main__":
        return None
    top = module.partition(".")[0]
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if is_users(file) if file else top not in sys.stdlib_module_names:
        return None
    return _with_version(top)


def _home_of(ufunc: Any) -> str | None:
    """Return the module of a package that has a ufunc under its name, as ufuncs do not say theirs."""
    found = [at for at, one in [*sys.modules.items()] if getattr(one, "__dict__", {}).get(ufunc.__name__) is ufunc]
    return next(filter(package, sorted(found, key=lambda at: (len(at), at))), None)


@functools.cache
def _with_version(top: str) -> str | None:
    if top in sys.stdlib_module_names:
        return f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if isinstance(version := getattr(sys.modules.get(top), "__version__", None), str):
        return f"{top} {version}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{top} {importlib.metadata.version(top)}"
    # Others have a name of their own, or share one. What has no version is known by its code, as the user's own is.
    names = sorted({*importlib.metadata.packages_distributions().get(top, ())})
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names) or None
