"""The errors of input files: all of them name the file, and say where in it."""

from typing import Any

from arsrc.errors import ArsrcReadError

COPY = "Check that it was written and copied to the end."


def damage(path: str, what: str, fix: str = COPY, *, position: int | None = None, **got: Any) -> ArsrcReadError:
    """Return the error of an input file that does not hold what its format wants.

    Args:
        path: The file.
        what: What is wrong.
        fix: What to do about it.
        position: Number of the record in the file that it concerns, from 0.
        **got: What else says where, as `byte=`.
    """
    where = {} if position is None else {"position": position}
    return ArsrcReadError("convert", what, fix, path=path, **where, **got).at(path, position, None)
