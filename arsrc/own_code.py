"""Whose code it is: the user's own, or that of Python, of an installed package, or of this one."""

import sysconfig
import traceback
from typing import Any, NamedTuple

_PACKAGE = __file__.removesuffix("own_code.py")
_PYTHON = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_MOST_FRAMES = 8


class ByNames(NamedTuple):
    """A function that is told apart from others by names and by the values that it holds, whatever its code."""

    function: Any


def is_users(file: str) -> bool:
    """Whether a file of Python code is the user's own; what was typed in or made by `exec` is."""
    return not (file.startswith((_PACKAGE, "<frozen ", *_PYTHON)) or _INSTALLED & set(file.split("/")))


def raised_at(error: BaseException) -> str:
    """Return the lines of the user's own code that an exception came through, to end the `fix` of a message with."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    lines = [f'\n  File "{at.filename}", line {at.lineno}, in {at.name}\n    {at.line}' for at in frames]
    return "It was raised here:" + "".join(lines[-_MOST_FRAMES:]).rstrip() if lines else ""
