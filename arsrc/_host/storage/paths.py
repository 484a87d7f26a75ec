"""Which files a config means: paths, globs, sharded sets, slices and file instructions, as a list of record ranges."""

import dataclasses
import operator
import os
import re
from collections.abc import Sequence
from typing import Any

from arsrc._host.storage.file_names import absolute, describe, explain, kind_of, look, matches
from arsrc.errors import ArsrcFileNotFoundError, ArsrcTypeError, ArsrcValueError

_SLICE = re.compile(r"(?P<path>.*)\[(?P<start>\d*):(?P<stop>\d*)\]", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class FileSlice:
    """Records `[start, stop)` of a file; `stop=None` is the file's end."""

    path: str
    start: int = 0
    stop: int | None = None

    @property
    def num_records(self) -> int:
        """Records in the slice; its end must be filled in."""
        assert self.stop is not None
        return self.stop - self.start

    def within(self, num_records: int) -> "FileSlice":
        """Return the slice with its end filled in, for a file with so many records; it is an error to lie beyond."""
        stop = num_records if self.stop is None else self.stop
        if stop > num_records or self.start > stop:
            what = f"a slice lies beyond the end of its file, which has {num_records} records"
            raise ArsrcValueError("paths", what, "Choose a smaller slice.", path=str(self))
        return dataclasses.replace(self, stop=stop)

    def __str__(self) -> str:
        return f"{self.path}[{self.start}:{'' if self.stop is None else self.stop}]"


def normalize(paths: Any) -> tuple[str, ...]:
    """Return what a user may pass as `paths` as a tuple of absolute texts, which `expand` takes."""
    if isinstance(paths, (str, os.PathLike)) or _is_instruction(paths):
        paths = (paths,)
    if not isinstance(paths, Sequence) or isinstance(paths, (bytes, bytearray)):
        raise ArsrcTypeError("paths", "must be a path, a glob, a file instruction or a sequence of these", paths=paths)
    if not paths:
        raise ArsrcValueError("paths", "is empty", "Name at least one ArrayRecord file.", paths=paths)
    return tuple(_as_text(path) for path in paths)


def _is_instruction(path: Any) -> bool:
    return all(hasattr(path, field) for field in ("filename", "skip", "take", "examples_in_shard"))


def _as_text(path: Any) -> str:
    if _is_instruction(path):
        return _instruction_text(path)
    text = _absolute(path)
    parse(text)
    return text


def _absolute(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise ArsrcTypeError("paths", "holds something that is no path", path=path)
    if not text:
        raise ArsrcValueError("paths", "holds an empty path", path=text)
    return absolute(text, "paths")


def _instruction_text(instruction: Any) -> str:
    try:
        skip, take = operator.index(instruction.skip), operator.index(instruction.take)
        # TFDS writes take=-1 for "to the end of the shard".
        stop = skip + take if take >= 0 else operator.index(instruction.examples_in_shard)
    except TypeError as error:
        what = f"file instruction of {instruction.filename!r} has numbers that are none"
        raise ArsrcTypeError("paths", what, instruction=instruction) from error
    if skip < 0 or stop < skip:
        raise ArsrcValueError(
            "paths", f"file instruction of {instruction.filename!r} is no range", skip=skip, take=take
        )
    return f"{_absolute(instruction.filename)}[{skip}:{stop}]"


def parse(text: str) -> FileSlice:
    """Split `path[start:stop]`; a text without brackets is a whole file."""
    match = _SLICE.fullmatch(text)
    if match is None:
        return FileSlice(text)
    start = int(match["start"] or 0)
    stop = int(match["stop"]) if match["stop"] else None
    if stop is not None and stop < start:
        if look(text):
            return FileSlice(text)
        raise ArsrcValueError("paths", "a slice ends before it starts", "Write file[start:stop].", path=text)
    return FileSlice(match["path"], start, stop)


def expand(paths: Sequence[str]) -> list[FileSlice]:
    """Return the files that `paths` match, in the order in which their records are numbered.

    Globs and sets expand in sorted order, where they stand in the list; a file of just this name comes first.

    Raises:
        ArsrcFileNotFoundError: Paths, globs or sets match nothing; all are named. Or a name leads to no file.
        ArsrcReadError: It cannot be told.
        ArsrcValueError: A name leads to what is no regular file.
    """
    found: list[FileSlice] = []
    missing: list[str] = []
    for text in paths:
        piece = parse(text)
        if piece.path != text and look(text):
            piece = FileSlice(text)
        files = matches(piece.path)
        if not files:
            missing.append(text)
        found.extend(dataclasses.replace(piece, path=file) for file in files)
    if missing:
        what = f"{len(missing)} of {len(paths)} paths match no file"
        raise ArsrcFileNotFoundError("paths", what, explain(parse(missing[0]).path), missing=missing)
    for piece in found:
        _check(piece.path)
    return found


def _check(path: str) -> None:
    """Refuse what is no regular file: who opens a FIFO or a device may wait for ever."""
    what = kind_of(path)
    if what is None:
        raise ArsrcFileNotFoundError("paths", "a name leads to no file", explain(path), path=path)
    if what == "a folder":
        raise ArsrcValueError("paths", "is a folder", f"Name its files. {describe(path)}", path=path)
    if what != "a file":
        raise ArsrcValueError("paths", f"is {what}", "Only regular files can be read.", path=path)
