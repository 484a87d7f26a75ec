"""What a name means on the disk: one file, the files that a glob matches, or a sharded set of files."""

import difflib
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_ASKED = re.compile(r"(?P<stem>.+)@(?P<number>[1-9]\d*|\*)(?P<suffix>\.[^@]*)?")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<shard>\d{5,6})-of-(?P<number>\d{5,6})(?P<suffix>\.[^@]*)?")
_ABOVE = re.compile(rf"(\.{{1,2}}({re.escape(os.sep)}+|$))*")
_MOST_SHOWN = 4


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


def absolute(path: str) -> str:
    """Return a path that means the same wherever the process goes; `~` is the home folder."""
    path = os.path.expanduser(path)
    if os.path.isabs(path):
        return path
    above = _ABOVE.match(path)
    assert above is not None
    # A ".." behind a name stays: the name may be a link.
    return os.path.join(os.path.abspath(above[0]), path[above.end() :])


def matches(path: str) -> list[str]:
    """Return the file of this name if there is one, else those that a glob matches, else the shards of a set."""
    if os.path.exists(path):
        return [path]
    folder, rest = _split(path)
    names = sorted(glob.glob(rest, root_dir=folder, recursive=True))
    if not names:
        whole = [names for one, names in _asked(path).items() if len(names) == one.number]
        names = whole[0] if len(whole) == 1 else []
    return [os.path.join(folder, name) for name in names]


def explain(path: str) -> str:
    """Say why a path matches no file, and what it could be instead."""
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
    if bracket and os.path.isfile(before):
        return "A slice of records is [start:stop], neither of them negative."
    return f"Check the spelling. {describe(folder, os.path.basename(path))}"


def describe(folder: str, like: str = "") -> str:
    """Say how to name the ArrayRecord files of a folder, judging by their names; first those that are like another."""
    names = {name for name in _names(folder) if "array_record" in name and not name.startswith(".")}
    sets = shard_sets(names)
    single = sorted(names.difference(*sets.values()))
    if len(single) > _MOST_SHOWN and all(name.endswith(".array_record") for name in single):
        single = ["*.array_record"]
    named = [*single, *map(str, sorted(sets))]
    close = difflib.get_close_matches(like, [*names, *map(str, sets)], _MOST_SHOWN)
    named = [*close, *(name for name in named if name not in close)]
    found = [os.path.join(folder, name) for name in named]
    return f"There is {_listed(found)}." if found else f"No name in {folder!r} holds 'array_record'."


def _split(path: str) -> tuple[str, str]:
    """Return the deepest folder of a path that there is by its literal name, and the rest."""
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder, path[len(folder) :].lstrip(os.sep)


def _asked(path: str) -> dict[ShardSet, list[str]]:
    """Return the sets, complete or not, that `path` can mean."""
    folder, name = os.path.split(path)
    asked = _ASKED.fullmatch(name)
    if asked is None:
        return {}
    kind = asked["stem"], asked["suffix"] or ""
    sets = shard_sets(_names(folder)).items()
    return {s: n for s, n in sets if (s.stem, s.suffix) == kind and asked["number"] in ("*", str(s.number))}


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it cannot be looked into, which is no reason to fail in another way
        return []


def shard_sets(names: Iterable[str]) -> dict[ShardSet, list[str]]:
    """Return the sets whose shards are among `names`, complete or not, each with these names in order."""
    found: dict[ShardSet, list[str]] = defaultdict(list)
    for name in sorted(names):
        if match := _SHARD.fullmatch(name):
            one = ShardSet(match["stem"], int(match["number"]), match["suffix"] or "")
            if int(match["shard"]) < one.number and name == one.shard(int(match["shard"])):
                found[one].append(name)
    return found


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:_MOST_SHOWN]))
    return shown if len(values) <= _MOST_SHOWN else f"{shown}, ..."
