"""The errors arsrc raises: one base class, the built-in kinds, and one form for every message.

    [arsrc] <where>: <what is wrong>; got <name>=<value>. <What to do.>

JAX keeps only the text of an exception that is raised inside a callback, so each message stands on its own.
"""

import operator
from typing import Any, Self

_MOST_SHOWN = 2000  # characters of one part of a message


class ArsrcError(Exception):
    """Base class of every error that arsrc raises.

    Args:
        where: The function, config field or class that found the error.
        what: What is wrong, without a full stop.
        fix: What to do about it, one or more sentences; may be empty.
        **got: The offending values by name.

    Attributes:
        what: What is wrong, without what stands around it in the message.
        got: These values.
        path: The file that the error is about, None where there is no one file or it is not known.
        position: The record's place in this file, the first of several, None where it is not known.
        record_id: The record's number in the data set, likewise.
    """

    path: str | None = None
    position: int | None = None
    record_id: int | None = None

    def __init__(self, where: str, what: str, fix: str = "", /, **got: Any) -> None:
        super().__init__(message(where, what, fix, **got))
        self.what, self.got = what, got
        self._texts = where, what, fix
        if isinstance(path := got.get("path"), str):
            self.path = path
        if isinstance(record_id := got.get("record_id", got.get("record_ids")), int):
            self.record_id = record_id

    def naming(self, **got: Any) -> Self:
        """Return the same error with more offending values."""
        error = type(self)(*self._texts, **self.got, **got).at(self.path, self.position, self.record_id)
        error.__cause__ = self.__cause__
        return error

    def inside(self, where: str) -> "ArsrcError":
        """Return the same error with the place around the one that found it."""
        own, *rest = self._texts
        error = type(self)(f"{where}, {own}", *rest, **self.got).at(self.path, self.position, self.record_id)
        error.__cause__ = self.__cause__
        return error

    def at(self, path: str | None, position: int | None, record_id: int | None) -> Self:
        """Return the error, which now knows which record it is about."""
        self.path, self.position, self.record_id = path, position, record_id
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Configs hold what cannot be pickled, and errors have to get from one process to another all the same.
        got = {
            name: value if isinstance(value, str | int | float) else shown(value) for name, value in self.got.items()
        }
        return _restored, (type(self), *self.args), self.__dict__ | {"got": got}


class ArsrcValueError(ArsrcError, ValueError):
    """An argument, a config field or a state has a value that cannot be used."""


class ArsrcTypeError(ArsrcError, TypeError):
    """An argument or a config field has a type that cannot be used."""


class ArsrcIndexError(ArsrcError, IndexError):
    """A position or a record id lies outside the data set."""


class ArsrcFileNotFoundError(ArsrcError, FileNotFoundError):
    """A path or a pattern of the config matches no file."""


class ArsrcReadError(ArsrcError, OSError):
    """A file cannot be read, or does not hold what it held when it was opened."""


class ArsrcWriteError(ArsrcError, OSError):
    """A file cannot be written, or does not hold what was written to it."""


class RecordError(ArsrcValueError):
    """One record does not fit its codec.

    Raised by codecs, which know a record only as a row of the batch; the source catches it and raises it
    again with the file, the position in the file and the record id in place of the row.

    Attributes:
        row: Row of the record in the `RecordBatch` that was decoded.
        what: What is wrong with the record.
        fix: What to do about it.
    """

    def __init__(self, row: int, what: str, fix: str = "") -> None:
        super().__init__("decode", f"row {row}: {what}", str(fix))
        self.row = operator.index(row)
        self.what, self.fix = str(what), str(fix)


def message(where: str, what: str, fix: str = "", /, **got: Any) -> str:
    """Return one text in the form that every error of arsrc has; the arguments are those of `ArsrcError`.

    Each part of it is cut in its middle if it is long, and can be printed, whatever a user's values may hold.
    """
    values = ", ".join(f"{name}={shown(value)}" for name, value in got.items())
    text = f"[arsrc] {_cut(where)}: {_cut(what)}"
    if values:
        text += f"; got {_cut(values)}"
    text = f"{text}. {_cut(fix)}".rstrip() if fix else f"{text}."
    # Lone surrogates cannot be printed, and JAX would cut the text at a null character.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def shown(value: object) -> str:
    """Return the repr of a user's value, whatever that is."""
    try:
        return _cut(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def said(error: BaseException) -> str:
    """Return the kind of a user's error and what it says, whatever that is."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}" if str(error) else kind
    except Exception:
        return kind


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_SHOWN
    half = _MOST_SHOWN // 2
    return text if left_out <= 0 else f"{text[:half]} ... ({left_out} characters) ... {text[-half:]}"


def _restored(kind: type[ArsrcError], text: str) -> ArsrcError:
    """Return an error that was pickled, as in another process."""
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def sides(**texts: str) -> str:
    """Return texts on aligned lines under their names, to end the `fix` of a message with."""
    width = max(map(len, texts)) + 1
    return "".join(f"\n  {name + ':':<{width}} {text}" for name, text in texts.items())
