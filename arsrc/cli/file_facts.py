"""What is known of files without decoding their records: sizes, counts, how they were written, lengths of records."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.encoding import encoding_of
from arsrc._host.format.writer_options import writer_options
from arsrc._host.machine.threads import on_threads
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.lengths import known_lengths
from arsrc.errors import ArsrcError

_MOST_KNOWN = 2**22  # records whose lengths are looked up
_SAMPLES = 16  # groups that are decoded where nothing else tells
_OF_GROUP = 256  # records of each
_MOST_BINS = 10
_SKEWED = 16  # so many times the median, and bins grow from one to the next


class FileSize(NamedTuple):
    """How large a file is.

    Attributes:
        path: The file.
        num_bytes: Of all of it.
        num_records: Of the slice that is read.
    """

    path: str
    num_bytes: int
    num_records: int


class FileFacts(NamedTuple):
    """What is known of some files.

    Attributes:
        files: The size of each.
        group_sizes: Records in a chunk, all that there are.
        compressions: "none", "zstd", "transposed brotli" and so on, all that there are.
        writer_options: Those that stand in the first file.
    """

    files: list[FileSize]
    group_sizes: list[int]
    compressions: list[str]
    writer_options: str


class Lengths(NamedTuple):
    """How long records are.

    Attributes:
        lengths: i64[num_known], bytes of those that were looked at.
        num_records: How many there are.
    """

    lengths: NDArray[np.int64]
    num_records: int

    @property
    def are_all(self) -> bool:
        """Whether none was left out."""
        return len(self.lengths) == self.num_records

    @property
    def are_equal(self) -> bool:
        """Whether all that were looked at are of one length."""
        return len(self.lengths) > 0 and bool(self.lengths.min() == self.lengths.max())


class Bin(NamedTuple):
    """Some lengths.

    Attributes:
        least: The first of them, in bytes.
        most: The last of them.
        num_records: How many records have one of them.
    """

    least: int
    most: int
    num_records: int


def file_facts(data_set: DataSet) -> FileFacts:
    """Return what is known of the files of a data set."""
    files = data_set.files
    stops = np.cumsum([piece.num_records for piece in files.numbering.slices])
    opened = files.opened_for(files.numbering.find(stops - 1))  # of all of them
    paths = list(opened.files)
    first = data_set.slices[0].path
    options = writer_options(first)
    if options is None:
        options = files.pool.reader(first, files.stamps[first]).reader.writer_options_string()
    return FileFacts(
        files=[
            FileSize(piece.path, files.stamps[piece.path].num_bytes, piece.num_records) for piece in data_set.slices
        ],
        group_sizes=sorted({one.group_size for one in opened.files.values()}),
        compressions=sorted({encoding or "none" for encoding in on_threads(encoding_of, paths)}),
        writer_options=options,
    )


def lengths_of(data_set: DataSet) -> Lengths:
    """Return how long the records of a data set are: of all, of millions, or of some that had to be read."""
    num_records = data_set.num_records
    ids = _spread(num_records, _MOST_KNOWN)
    lengths = known_lengths(data_set.files, ids)
    if lengths is None:
        lengths = _read_lengths(data_set)
    return Lengths(lengths, num_records)


def histogram(lengths: NDArray[np.int64]) -> list[Bin]:
    """Return how many records have which lengths: each length alone where there are few, else bins of several."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) <= _MOST_BINS:
        return [Bin(value, value, count) for value, count in zip(values.tolist(), counts.tolist(), strict=True)]
    low, high = int(values[0]), int(values[-1])
    is_skewed = high > _SKEWED * max(1, int(np.median(lengths)))
    spaced = np.geomspace(max(low, 1), high + 1, _MOST_BINS + 1) if is_skewed else None
    edges = np.unique(
        np.ceil(np.linspace(low, high + 1, _MOST_BINS + 1) if spaced is None else spaced).astype(np.int64)
    )
    edges[0] = low
    counted = np.add.reduceat(np.append(counts, 0), np.searchsorted(values, edges[:-1]))
    # Where no value lies in a bin, `reduceat` gives what stands behind it.
    is_empty = np.searchsorted(values, edges[:-1]) == np.searchsorted(values, edges[1:])
    counted[is_empty] = 0
    return [Bin(*one) for one in zip(edges[:-1].tolist(), (edges[1:] - 1).tolist(), counted.tolist(), strict=True)]


def _spread(num_records: int, most: int) -> NDArray[np.int64]:
    """Return the ids of all records, or of so many from one end to the other."""
    return np.arange(num_records) if num_records <= most else np.arange(most) * num_records // most


def _read_lengths(data_set: DataSet) -> NDArray[np.int64]:
    """Return the lengths of some records that are read: neighbours, from several places; bad ones are left out."""
    num_records, found = data_set.num_records, []
    for part in _spread(-(-num_records // _OF_GROUP), _SAMPLES).tolist():
        ids = np.arange(part * _OF_GROUP, min((part + 1) * _OF_GROUP, num_records))
        found.append(data_set.read(ids, on_bad=_pass_over).records.lengths)
    return np.concatenate(found)


def _pass_over(rows: NDArray[np.int64], error: ArsrcError) -> None:
    del rows, error
