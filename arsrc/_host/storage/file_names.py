"""What a name means on the disk: one file, the files that a glob matches, or a sharded set of files."""

import contextlib
import difflib
import errno
import fnmatch
import glob
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from arsrc._host.storage import system
from arsrc.errors import ArsrcFileNotFoundError, ArsrcReadError, ArsrcValueError

_ASKED = re.compile(r"(?P<stem>.+)@(?P<number>[1-9]\d*|\*)(?P<suffix>\.[^@]*)?")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<shard>\d{5,6})-of-(?P<number>\d{5,6})(?P<suffix>\.[^@]*)?")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ABOVE = re.compile(rf"(\.{{1,2}}({re.escape(os.sep)}+|$))*")
_MOST_SHOWN = 4
_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_MOST_BYTES = 4095  # of a path, on Linux; elsewhere fewer

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class ShardSet(NamedTuple):
    """Files `<stem>-<shard>-of-<number><suffix>`, written `<stem>@<number><suffix>`."""

    stem: str
    number: int
    suffix: str

    def shard(self, shard: int) -> str:
        """Return the name of one shard, counted from 0."""
        return f"{self.stem}-{shard:05d}-of-{self.number:05d}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.stem}@{self.number}{self.suffix}"


def absolute(path: str, where: str) -> str:
    """Return a path that means the same wherever the process goes; `~` is the home folder.

    Raises:
        ArsrcValueError: No file can have this path.
        ArsrcFileNotFoundError: It is relative, and the working folder is gone.
    """
    if wrong := _impossible(path):
        raise ArsrcValueError(where, wrong, path=path)
    if _ADDRESS.match(path):
        fix = "Mount the bucket (gcsfuse, s3fs, ...) or copy the files: only files of a file system are used."
        raise ArsrcValueError(where, "is an address in place of a path", fix, path=path)
    path = os.path.expanduser(path)
    if os.path.isabs(path):
        return path
    above = _ABOVE.match(path)
    assert above is not None
    try:
        # A ".." behind a name stays: the name may be a link.
        return os.path.join(os.path.abspath(above[0]), path[above.end() :])
    except OSError as error:
        what = f"is relative, and the working folder is not to be found ({error.strerror})"
        raise ArsrcFileNotFoundError(where, what, path=path) from error


def _impossible(path: str) -> str:
    """Return why no file can have a path; nothing where one can."""
    try:
        num_bytes = len(os.fsencode(path))
    except UnicodeEncodeError:
        return "holds a character that no name of a file has"
    if "\0" in path:
        return "holds a null character, which no name of a file has"
    return f"has {num_bytes} bytes, and paths have no more than {_MOST_BYTES}" if num_bytes > _MOST_BYTES else ""


def matches(path: str) -> list[str]:
    """Return the file of this name if there is one, else those that a glob matches, else the shards of a set."""
    if look(path) is not None:
        return [path]
    folder, rest = _split(path)
    names = sorted(set(_found(folder, rest))) if glob.has_magic(rest) else []
    if not names:
        whole = [names for one, names in _asked(path).items() if len(names) == one.number]
        names = whole[0] if len(whole) == 1 else []
    return [os.path.join(folder, name) for name in names]


def explain(path: str) -> str:
    """Say why a path matches no file, and what it could be instead."""
    if why := _why_not(path):
        return why
    folder, rest = _split(path)
    first, *below = rest.split(os.sep)
    if below and glob.has_magic(rest):
        return f"Nothing in {folder!r} matches {rest!r}."
    if below:
        return f"There is no folder {os.path.join(folder, first)!r}."
    sets = _asked(path)
    whole = [str(one) for one, names in sets.items() if len(names) == one.number]
    if whole:
        return f"There are several such sets: {_listed(whole)}."
    if sets:
        nearest, names = max(sets.items(), key=lambda one: len(one[1]))
        missing = sorted({nearest.shard(shard) for shard in range(nearest.number)} - set(names))
        return f"Of its {nearest.number} shards {len(missing)} missing: {_listed(missing)}."
    before, bracket, _ = path.rpartition("[")
    if bracket and look(before) is not None:
        return "A slice of records is [start:stop], neither of them negative."
    return f"Check the spelling. {describe(folder, os.path.basename(path))}"


def _why_not(path: str) -> str:
    """Say what the system says of a path that leads nowhere, if that is more than that there is no such name."""
    try:
        system.calls.stat(path)
    except FileNotFoundError:
        if look(path, follow_links=False) is not None:
            return f"It is a link to {system.calls.resolve(path)!r}, where there is nothing."
    except OSError as error:
        return f"The system says: {error.strerror}."
    return ""


def describe(folder: str, like: str = "") -> str:
    """Say how to name the ArrayRecord files of a folder, judging by their names; first those that are like another."""
    names: set[str] = set()
    with contextlib.suppress(ArsrcReadError):  # it cannot be looked into, which is no reason to fail in another way
        names.update(name for name in names_in(folder) if "array_record" in name and not name.startswith("."))
    sets = shard_sets(names)
    single = sorted(names.difference(*sets.values()))
    if len(single) > _MOST_SHOWN and all(name.endswith(".array_record") for name in single):
        single = ["*.array_record"]
    named = [*single, *map(str, sorted(sets))]
    close = difflib.get_close_matches(like, [*names, *map(str, sets)], _MOST_SHOWN)
    named = [*close, *(name for name in named if name not in close)]
    found = [os.path.join(folder, name) for name in named]
    return f"There is {_listed(found)}." if found else f"No name in {folder!r} holds 'array_record'."


def look(path: str, follow_links: bool = True) -> os.stat_result | None:
    """Return what a path leads to, None: nothing; an error where that cannot be told."""
    try:
        return system.calls.stat(path, follow_links)
    except ValueError:  # of characters that no name has
        return None
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise ArsrcReadError("paths", f"cannot look at a file ({error.strerror})", path=path) from error


def kind_of(path: str) -> str | None:
    """Return what a path leads to, in words, "a file" if it can be read; None: nothing; an error as from `look`."""
    found = look(path)
    return None if found is None else _KINDS.get(stat.S_IFMT(found.st_mode), "no file")


def is_folder(path: str) -> bool:
    """Whether a path leads to a folder; an error where that cannot be told."""
    found = look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, none if there is no such folder."""
    try:
        return system.calls.list_folder(folder or ".")
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return []
        raise ArsrcReadError("paths", f"cannot look into a folder ({error.strerror})", path=folder) from error


def _found(folder: str, pattern: str) -> Iterator[str]:
    """Yield the paths below a folder that a glob matches, as `glob.glob` does, but leave no folder out in silence."""
    first, _, rest = pattern.partition(os.sep)
    rest = rest.lstrip(os.sep)
    if first == "**":
        if rest:
            yield from _found(folder, rest)
        for name in names_in(folder):
            if name[0] != ".":
                if not rest:
                    yield name
                if is_folder(path := os.path.join(folder, name)):
                    yield from (os.path.join(name, below) for below in _found(path, pattern))
        return
    if glob.has_magic(first):
        names = [n for n in fnmatch.filter(names_in(folder), first) if n[0] != "." or first[0] == "."]
    else:
        names = [first] if look(os.path.join(folder, first), follow_links=False) else []
    for name in names:
        if rest:
            yield from (os.path.join(name, below) for below in _found(os.path.join(folder, name), rest))
        else:
            yield name


def _split(path: str) -> tuple[str, str]:
    """Return the deepest folder of a path that there is by its literal name, and the rest."""
    folder = os.path.dirname(path)
    while folder and not is_folder(folder):
        folder = os.path.dirname(folder)
    return folder, path[len(folder) :].lstrip(os.sep)


def _asked(path: str) -> dict[ShardSet, list[str]]:
    """Return the sets, complete or not, that `path` can mean."""
    folder, name = os.path.split(path)
    asked = _ASKED.fullmatch(name)
    if asked is None:
        return {}
    kind = asked["stem"], asked["suffix"] or ""
    sets = shard_sets(names_in(folder)).items()
    return {s: n for s, n in sets if (s.stem, s.suffix) == kind and asked["number"] in ("*", str(s.number))}


def shard_sets(names: Iterable[str]) -> dict[ShardSet, list[str]]:
    """Return the sets whose shards are among `names`, complete or not, each with these names in order."""
    found: dict[ShardSet, list[str]] = defaultdict(list)
    for name in sorted(names):
        if match := _SHARD.fullmatch(name):
            one = ShardSet(match["stem"], int(match["number"]), match["suffix"] or "")
            if int(match["shard"]) < one.number and name == one.shard(int(match["shard"])):
                found[one].append(name)
    return found


def lock_of(path: str) -> str | None:
    """Return the file that the writer of a shard's set holds, which globs do not find; None: it is no shard."""
    folder, name = os.path.split(path)
    shard = _SHARD.fullmatch(name)
    return shard and os.path.join(folder, f".{shard['stem']}{shard['suffix'] or ''}.writing")


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:_MOST_SHOWN]))
    return shown if len(values) <= _MOST_SHOWN else f"{shown}, ..."
