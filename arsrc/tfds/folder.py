"""What a folder of TFDS says of its data set: `info`."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from arsrc._host.storage.file_names import absolute
from arsrc._host.storage.info_files import InfoFiles, read_info
from arsrc.errors import ArsrcFileNotFoundError, ArsrcTypeError, ArsrcValueError, said
from arsrc.frozen import Terse
from arsrc.tfds.features import Feature, Path, parse_features

T = TypeVar("T")
_INFO, _FEATURES, _NAMES = "dataset_info.json", "features.json", ".labels.txt"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
FORMAT = "array_record"


@dataclasses.dataclass(frozen=True, repr=False)
class DatasetInfo(Terse):
    """What the files of TFDS say of a data set.

    Attributes:
        name: Its name.
        version: Its version.
        splits: Records of each split, by the splits' names.
        features: What examples hold, by the names under which it is stored: those of dicts inside of dicts are joined
            by "/".
        folder: Where the files are.
    """

    name: str
    version: str
    splits: Mapping[str, int]
    features: Mapping[str, Feature]
    folder: str


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of TFDS, read.

    Attributes:
        path: Where it is, a path from the root.
        name: Of the data set.
        version: Of the data set.
        formats: In which file formats its records are there.
        shards: Records of each shard, by the names of the splits.
        templates: How the files of each split are called.
        features: What examples hold, by where it stands in them.
    """

    path: str
    name: str
    version: str
    formats: tuple[str, ...]
    shards: Mapping[str, tuple[int, ...]]
    templates: Mapping[str, str]
    features: Mapping[Path, Feature]

    def shard(self, split: str, number: int) -> str:
        """Return the path of one file of a split."""
        count = len(self.shards[split])
        digits = max(5, len(str(count)))
        shard, of = f"{number:0{digits}d}", f"{count:0{digits}d}"
        parts = {
            "DATASET": self.name,
            "SPLIT": split,
            "FILEFORMAT": FORMAT,
            "SHARD_INDEX": shard,
            "NUM_SHARDS": of,
            "SHARD_X_OF_Y": f"{shard}-of-{of}",
        }
        name = re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), self.templates[split])
        return f"{self.path.rstrip('/')}/{name}"


def info(folder: str | os.PathLike[str]) -> DatasetInfo:
    """Return what a folder of TFDS says of its data set, without looking at the records.

    Host only.

    Args:
        folder: The folder that holds `dataset_info.json`, as "~/tensorflow_datasets/mnist/3.0.1", or one above it with
            no other such folder in it.

    Returns:
        Names, sizes and features: `info(folder).features["label"].class_names`, for example.

    Raises:
        ArsrcTypeError: `folder` is no path.
        ArsrcFileNotFoundError: There are no such files.
        ArsrcValueError: There are several such folders, or the files are not as TFDS writes them.
        ArsrcReadError: The files cannot be read.
    """
    found = read_folder(folder, None)
    sizes = {name: sum(lengths) for name, lengths in found.shards.items()}
    features = {"/".join(path): feature for path, feature in found.features.items()}
    return DatasetInfo(found.name, found.version, sizes, features, found.path)


def read_folder(folder: Any, limit: float | None) -> Folder:
    """Return what the files of a folder say; `limit` is how many seconds reading them may take, None for any."""
    path = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path:
        raise ArsrcTypeError("folder", "must be a path", folder=folder)
    files = read_info(absolute(path, "folder"), _INFO, (_FEATURES, _NAMES), limit)
    if _FEATURES not in files.contents:
        fix = "TFDS writes it since version 4.0: let it write the data set again."
        raise ArsrcFileNotFoundError("folder", f"has no {_FEATURES!r}", fix, folder=files.folder)
    names = {
        name.removesuffix(_NAMES): tuple(filter(None, map(str.strip, content.decode(errors="replace").split("\n"))))
        for name, content in files.contents.items()
        if name.endswith(_NAMES)
    }
    features = _parsed(files, _FEATURES, lambda content: parse_features(content, names))
    return _parsed(files, _INFO, lambda content: _folder(files.folder, content, features))


def _parsed(files: InfoFiles, name: str, parse: Callable[[Any], T]) -> T:
    try:
        return parse(json.loads(files.contents[name]))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        what = f"{name!r} is not as TFDS writes it ({said(error)})"
        raise ArsrcValueError("folder", what, folder=files.folder) from error


def _folder(path: str, content: dict[str, Any], features: Mapping[Path, Feature]) -> Folder:
    splits = {split["name"]: split for split in content.get("splits", [])}
    formats: Sequence[str] = [content.get("fileFormat") or "tfrecord", *content.get("alternativeFileFormats", [])]
    return Folder(
        path,
        str(content["name"]),
        str(content["version"]),
        tuple(map(str, formats)),
        {name: tuple(map(int, split.get("shardLengths", []))) for name, split in splits.items()},
        {name: str(split.get("filepathTemplate") or _TEMPLATE) for name, split in splits.items()},
        features,
    )
