"""A split of a data set of TFDS as a config: `source`."""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcValueError
from arsrc.tfds.codec import codec_of
from arsrc.tfds.folder import FORMAT, Folder, read_folder
from arsrc.tfds.splits import Range, Split, resolve


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
        **options: Other fields of `ArrayRecordSourceConfig`.

    Returns:
        The config; its paths are slices of the split's files, with the numbers of records that the data set says.

    Raises:
        ArsrcTypeError: An argument has a type that cannot be used.
        ArsrcFileNotFoundError: There is no such folder.
        ArsrcValueError: The folder holds files of another format or several data sets, the split is none that there is,
            features have no fixed shape, or an argument has another value that cannot be used.
        ArsrcReadError: The files that tell of the data set cannot be read.
    """
    found = read_folder(folder, getattr(options.get("read"), "timeout_seconds", None))
    if FORMAT not in found.formats:
        what = f"the records of this data set are in files of the format {found.formats[0]!r}"
        fix = f'Let TFDS write it with file_format="{FORMAT}", or convert TFRecord files: python -m arsrc convert.'
        raise ArsrcValueError("folder", what, fix, folder=found.path)
    ranges = resolve(split, found.shards)
    paths = [piece for one in ranges for piece in _slices(found, one)]
    if not paths:
        raise ArsrcValueError("split", "holds no records", split=split)
    codec = codec_of(found.features, features)
    return ArrayRecordSourceConfig(paths, batch_size, codec=codec, **options)


def _slices(folder: Folder, one: Range) -> Iterator[str]:
    """Yield the slices of files that a range is made of; both ends stand in each, so that nobody has to count."""
    lengths = folder.shards[one.name]
    for number, (end, length) in enumerate(zip(itertools.accumulate(lengths), lengths, strict=True)):
        start, stop = max(one.start - end + length, 0), min(one.stop - end + length, length)
        if start < stop:
            yield f"{folder.shard(one.name, number)}[{start}:{stop}]"
