"""Folders of TFDS: which files they stand for, and the line of Python that reads files that lie in one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from arsrc._host.storage.file_names import absolute, is_folder
from arsrc.cli.image_heads import image_head
from arsrc.codecs import example_wire
from arsrc.errors import ArsrcError, ArsrcFileNotFoundError
from arsrc.quoted import quoted
from arsrc.tfds.codec import spec_of
from arsrc.tfds.features import Feature
from arsrc.tfds.folder import Folder, read_folder
from arsrc.tfds.source import check_complete, files_of

_MOST_RECORDS = 256  # of a batch
_FIRST = "train"  # of the splits


class Source(NamedTuple):
    """What reads a data set of TFDS.

    Attributes:
        call: The call that reads one split, as Python code.
        splits: Records of each of the splits that files are of, by name.
    """

    call: str
    splits: Mapping[str, int]


def laid_open(paths: Sequence[str]) -> list[str]:
    """Return paths with the files of all splits in place of each folder of TFDS.

    Raises:
        ArsrcFileNotFoundError: Files of a folder of TFDS are not there.
        ArsrcReadError: What tells of a data set cannot be read.
        ArsrcValueError: A folder holds several data sets, or files of another format.
    """
    found = list[str]()
    for path in paths:
        folder = _folder(path) if path and is_folder(absolute(path, "paths")) else None
        if folder is None:
            found.append(path)
        else:
            pieces = files_of(folder, "all")
            check_complete(folder, pieces, None)
            found += map(str, pieces)
    return found


def source_of(files: Sequence[str], record: Mapping[str, example_wire.Feature]) -> Source | None:
    """Return what reads the split which files are of, or one of several; None: they are of no data set of TFDS.

    Args:
        files: Paths from the root.
        record: What one of their records holds, which says the size of pictures; empty where it is not known.
    """
    parents = {file.rpartition("/")[0] or "/" for file in files}
    try:
        folder = _folder(parents.pop()) if len(parents) == 1 else None
    except ArsrcError:
        return None
    if folder is None or not (splits := _splits(folder, set(files))):
        return None
    unsaid = {"/".join(path): feature for path, feature in folder.features.items() if spec_of(feature) is None}
    specs = {name: _image(feature, record.get(name)) for name, feature in unsaid.items()}
    if list(specs.values()).count("None") == len(folder.features):
        return None
    split = _FIRST if _FIRST in splits else next(iter(splits))
    batch_size = min(_MOST_RECORDS, splits[split])  # a larger one would be an error
    line = f"arsrc.tfds.source({quoted(folder.path)}, split={quoted(split)}, batch_size={batch_size}"
    lines = [f"    {quoted(name)}: {spec},  # {unsaid[name]}" for name, spec in specs.items()]
    return Source("\n".join([f"{line}, features={{", *lines, "})"]) if lines else f"{line})", splits)


def _image(feature: Feature, held: example_wire.Feature | None) -> str:
    """Return how a feature without a fixed shape is read: pictures in the size of one of them, all others not."""
    is_one = feature.is_image and not feature.sequence_lengths and len(feature.shape) == 3
    if not is_one or feature.dtype not in ("uint8", "uint16") or held is None or held.kind != "bytes":
        return "None"
    head = image_head(held.values[0]) if held.values else None
    if head is None:
        return "None"
    dtype = "" if feature.dtype == "uint8" else f", dtype={quoted(feature.dtype)}"
    return f"arsrc.codecs.Image({(head.height, head.width, feature.shape[2] or head.channels)}{dtype})"


def _folder(path: str) -> Folder | None:
    """Return what TFDS says of a folder; None: it says nothing of it."""
    try:
        return read_folder(path, None)
    except ArsrcFileNotFoundError:
        return None


def _splits(folder: Folder, files: set[str]) -> dict[str, int]:
    """Return the splits that some of the files are of, and how many records each has."""
    return {
        name: sum(lengths)
        for name, lengths in folder.shards.items()
        if any(folder.shard(name, number) in files for number in range(len(lengths)))
    }
