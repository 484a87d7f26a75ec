"""Folders of TFDS: which files they stand for, and the line of Python that reads files that lie in one."""

from collections.abc import Sequence

from arsrc._host.storage.file_names import absolute, is_folder
from arsrc.errors import ArsrcError, ArsrcFileNotFoundError
from arsrc.quoted import quoted
from arsrc.tfds.codec import spec_of
from arsrc.tfds.folder import Folder, read_folder
from arsrc.tfds.source import files_of


def laid_open(paths: Sequence[str]) -> list[str]:
    """Return paths with the files of all splits in place of each folder of TFDS.

    Raises:
        ArsrcReadError: What tells of a data set cannot be read.
        ArsrcValueError: A folder holds several data sets, or files of another format.
    """
    found = list[str]()
    for path in paths:
        folder = _folder(path) if path and is_folder(absolute(path, "paths")) else None
        found += [path] if folder is None else map(str, files_of(folder, "all"))
    return found


def source_text(files: Sequence[str], batch_size: int) -> str | None:
    """Return the call that reads the splits which files are of; None: they are not of a data set of TFDS.

    Args:
        files: Paths from the root.
        batch_size: For the config.
    """
    parents = {file.rpartition("/")[0] or "/" for file in files}
    try:
        folder = _folder(parents.pop()) if len(parents) == 1 else None
    except ArsrcError:
        return None
    if folder is None or not (splits := _splits(folder, set(files))):
        return None
    unsaid = {"/".join(path): feature for path, feature in folder.features.items() if spec_of(feature) is None}
    if len(unsaid) == len(folder.features):
        return None
    line = f"arsrc.tfds.source({quoted(folder.path)}, split={quoted('+'.join(splits))}, batch_size={batch_size}"
    lines = [f"    {quoted(name)}: None,  # {feature}" for name, feature in unsaid.items()]
    return "\n".join([f"{line}, features={{", *lines, "})"]) if lines else f"{line})"


def _folder(path: str) -> Folder | None:
    """Return what TFDS says of a folder; None: it says nothing of it."""
    try:
        return read_folder(path, None)
    except ArsrcFileNotFoundError:
        return None


def _splits(folder: Folder, files: set[str]) -> list[str]:
    """Return the splits that some of the files are of."""
    return [
        name
        for name, lengths in folder.shards.items()
        if any(folder.shard(name, number) in files for number in range(len(lengths)))
    ]
