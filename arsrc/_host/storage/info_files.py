"""The small files that tell of a data set, beside its records: which folder holds them, and what they say."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from arsrc._host.machine import slow_reads
from arsrc._host.storage import file_names
from arsrc._host.storage.open_file import OpenFile
from arsrc.errors import ArsrcFileNotFoundError, ArsrcReadError, ArsrcValueError

_LEVELS = 2  # folders below the one that is given: a config, and its versions
_UNFINISHED = "incomplete"  # in the name of a folder that TFDS is writing
_MOST_SHOWN = 8


class InfoFiles(NamedTuple):
    """The files of one folder.

    Attributes:
        folder: Where they are, a path from the root.
        contents: What they hold, by their names.
    """

    folder: str
    contents: dict[str, bytes]


def read_info(folder: str, main: str, others: tuple[str, ...], limit: float | None) -> InfoFiles:
    """Return some files of a folder, or of the only one below it that has them.

    Args:
        folder: The folder, a path from the root.
        main: Name of a file that the folder must have.
        others: How the names of other files end that are read where they are there.
        limit: Most seconds that this may take; None for any.

    Raises:
        ArsrcFileNotFoundError: No folder has the file.
        ArsrcValueError: Several have it.
        ArsrcReadError: A file or a folder cannot be read, or that takes longer.
    """

    def read() -> InfoFiles:
        found = _the_folder(folder, main)
        names = [name for name in file_names.names_in(found) if name.endswith((main, *others))]
        return InfoFiles(found, {name: _content(os.path.join(found, name)) for name in sorted(names)})

    return slow_reads.read(lambda: f"what is said of the data set in {folder!r}", read, limit)


def missing_files(paths: Sequence[str], limit: float | None) -> list[str]:
    """Return those of the paths of files that are not there; each folder is looked into once.

    Args:
        paths: Paths from the root.
        limit: Most seconds that this may take; None for any.

    Raises:
        ArsrcReadError: A folder cannot be looked into, or that takes longer.
    """

    def look() -> list[str]:
        there = {folder: set(file_names.names_in(folder)) for folder in {os.path.dirname(path) for path in paths}}
        return [path for path in paths if os.path.basename(path) not in there[os.path.dirname(path)]]

    return slow_reads.read(lambda: f"which files lie in {os.path.dirname(paths[0])!r}", look, limit)


def _the_folder(folder: str, main: str) -> str:
    if main in file_names.names_in(folder):
        return folder
    if not file_names.is_folder(folder):
        what = "is no folder" if file_names.look(folder) else "there is no such folder"
        raise ArsrcFileNotFoundError("folder", what, folder=folder)
    found = sorted(_below(folder, main, _LEVELS))
    if len(found) == 1:
        return found[0]
    if found:
        more = f", and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        fix = f"Give one of them: {', '.join(map(repr, found[:_MOST_SHOWN]))}{more}."
        raise ArsrcValueError("folder", f"holds {len(found)} data sets", fix, folder=folder)
    what = f"neither this folder nor one of {_LEVELS} levels below has a {main!r}"
    names = sorted(file_names.names_in(folder))
    there = f"{', '.join(map(repr, names[:_MOST_SHOWN]))}{', ...' if len(names) > _MOST_SHOWN else ''}"
    raise ArsrcFileNotFoundError("folder", what, f"There is {there or 'nothing'}.", folder=folder)


def _below(folder: str, main: str, levels: int) -> Iterator[str]:
    """Yield the folders below one that hold a file of this name."""
    for name in file_names.names_in(folder) if levels else []:
        path = os.path.join(folder, name)
        if name[0] != "." and _UNFINISHED not in name and file_names.is_folder(path):
            if main in file_names.names_in(path):
                yield path
            else:
                yield from _below(path, main, levels - 1)


def _content(path: str) -> bytes:
    """Return what a small file holds."""
    if file_names.kind_of(path) != "a file":  # who opens a FIFO may wait for ever
        raise ArsrcReadError("folder", "holds something that is no file", path=path)
    try:
        with contextlib.closing(OpenFile(path)) as file:
            size = file.stamp().num_bytes
            content = file.read(size, 0)
    except OSError as error:
        raise ArsrcReadError("folder", f"a file of it cannot be read ({error.strerror})", path=path) from error
    if len(content) < size:
        raise ArsrcReadError("folder", "a file of it changed while it was read", "Try again.", path=path)
    return content
