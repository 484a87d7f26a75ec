"""A split of a data set of TFDS as a config: `source`."""

import dataclasses
import difflib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arsrc._host.storage.info_files import missing_files
from arsrc._host.storage.paths import FileSlice
from arsrc.amounts import counted
from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcFileNotFoundError, ArsrcTypeError, ArsrcValueError
from arsrc.tfds.codec import codec_of
from arsrc.tfds.folder import FORMAT, Folder, read_folder
from arsrc.tfds.splits import Range, Split, resolve

_MOST_SHOWN = 8
_SAID = {
    "codec": "Say by features what examples hold, or put another codec in: dataclasses.replace(config, codec=...).",
    "paths": "Say by split which files are read.",
}


def source(
    folder: str | os.PathLike[str],
    split: Split = "train",
    *,
    batch_size: int,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> ArrayRecordSourceConfig:
    """Return the config of a split of a data set that TFDS wrote into ArrayRecord files.

    Host only. Reads the small files that tell of the data set, and none of the records.

        tfds.source(folder, "train[:90%]", batch_size=64, shuffle_records=True)

    Elements are the dicts that TFDS gives, nested where these are. Labels are `int64`, pictures `uint8` of the shape
    that the data set says. What has no such shape has to be said or left out: pictures of any size, text, lists of any
    length; the error where it is not lists them, with the lines to write.

    Args:
        folder: The folder that holds `dataset_info.json`, as "~/tensorflow_datasets/mnist/3.0.1", or one above it with
            no other such folder in it.
        split: As TFDS writes splits: "train", "train[:90%]", "train[1000:2000]", "train[-10%:]", "train[:3shard]",
            sums of these ("train+test[:50%]"), or "all"; percents are rounded as TFDS rounds them. Or one of the parts
            that `even_splits` makes.
        batch_size: Records of a global batch.
        features: Specs as `TFExample` takes them, by name, in place of what the data set says; None leaves a feature
            out, or all of a dict: `{"image": Image((96, 96, 3)), "file_name": None}`. Names inside of dicts are joined
            by "/".
        **options: Other fields of `ArrayRecordSourceConfig`, but for `paths` and `codec`.

    Returns:
        The config; its paths are slices of the split's files, with the numbers of records that the data set says.

    Raises:
        ArsrcTypeError: An argument has a type that cannot be used, or there is no such option.
        ArsrcFileNotFoundError: There is no such folder, or files of the split are not there.
        ArsrcValueError: The folder holds files of another format or several data sets, the split is none that there is,
            features have no fixed shape, or an argument has another value that cannot be used.
        ArsrcReadError: The files that tell of the data set cannot be read.
    """
    _check_options(options)
    limit = getattr(options.get("read"), "timeout_seconds", None)
    found = read_folder(folder, limit)
    pieces = files_of(found, split)
    codec = codec_of(found.features, features)
    check_complete(found, pieces, limit)
    return ArrayRecordSourceConfig([str(piece) for piece in pieces], batch_size, codec=codec, **options)


def files_of(folder: Folder, split: Split) -> list[FileSlice]:
    """Return the slices of files that a split of a folder is made of, with both ends; each holds a record.

    Raises:
        ArsrcTypeError: It is no split.
        ArsrcValueError: The folder holds files of another format, or there is no such split, or no record in it.
    """
    if FORMAT not in folder.formats:
        what = f"the records of this data set are in files of the format {folder.formats[0]!r}"
        fix = f'Let TFDS write it with file_format="{FORMAT}", or convert TFRecord files: python -m arsrc convert.'
        raise ArsrcValueError("folder", what, fix, folder=folder.path)
    pieces = [piece for one in resolve(split, folder.shards) for piece in _slices(folder, one)]
    if not pieces:
        raise ArsrcValueError("split", "holds no records", split=split)
    return pieces


def check_complete(folder: Folder, pieces: Sequence[FileSlice], limit: float | None) -> None:
    """Raise an error where files of a folder are not there; `limit` is how many seconds that may take, None for any.

    Raises:
        ArsrcFileNotFoundError: Some are not there.
        ArsrcReadError: The folder cannot be looked into, or that takes longer.
    """
    if gone := missing_files([piece.path for piece in pieces], limit):
        what = f"is not complete: {len(gone)} of {counted(len(pieces), 'file')} that are to be read are not there"
        fix = "Copy them there, or let TFDS write the data set again."
        missing = [path.removeprefix(f"{folder.path}/") for path in gone[:_MOST_SHOWN]]
        raise ArsrcFileNotFoundError("folder", what, fix, folder=folder.path, missing=missing)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise an error for what is no field of a config, or one that the folder says."""
    names = {field.name for field in dataclasses.fields(ArrayRecordSourceConfig)}
    for name in options:
        if name in _SAID:
            raise ArsrcTypeError("source", f"{name} is what the folder says", _SAID[name], **{name: options[name]})
        if name not in names:
            close = difflib.get_close_matches(name, names - _SAID.keys() | {"features", "split"}, 1)
            fix = f"Did you mean {close[0]!r}?" if close else "Options are the fields of ArrayRecordSourceConfig."
            raise ArsrcTypeError("source", f"there is no option {name!r}", fix, **{name: options[name]})


def _slices(folder: Folder, one: Range) -> Iterator[FileSlice]:
    """Yield the slices of files that a range is made of; both ends stand in each, so that nobody has to count."""
    lengths = folder.shards[one.name]
    for number, (end, length) in enumerate(zip(itertools.accumulate(lengths), lengths, strict=True)):
        start, stop = max(one.start - end + length, 0), min(one.stop - end + length, length)
        if start < stop:
            yield FileSlice(folder.shard(one.name, number), start, stop)
