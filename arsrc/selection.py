"""`Selection`: which records of a data set are rows, kept in little memory, and in files."""

import dataclasses
import itertools
import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage.file_names import absolute
from arsrc._host.storage.whole_files import read_whole, write_whole
from arsrc.codecs.check import whole_number
from arsrc.errors import ArsrcReadError, ArsrcTypeError, ArsrcValueError, ArsrcWriteError, said
from arsrc.views.id_set import IdSet

_KIND = "arsrc selection 1"
_MOST = 2**32 - 1

Ranges = list[tuple[int, int]]


@dataclasses.dataclass(frozen=True, repr=False)
class Selection:
    """Which records of a data set are rows: what `select=` keeps; a value. Made by `select_records`, or of ids.

    It takes one bit for each record up to the last one, or four bytes for each that it holds, whichever is less.

    Attributes:
        ids: The records' ids: what `select=` takes. Kept as a set.
        num_records: Records of the data set that it was made for; None if that is not known.
        data: Tells this data set from others, as in a fingerprint; None if it is not known. Where it is, opening other
            data with this selection is an error.
    """

    ids: Any
    num_records: int | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ids, IdSet):
            found = selection_of(self.ids)
            if found is None:
                raise ArsrcTypeError("select", "must be record ids, ranges of them, or a boolean array", ids=self.ids)
            for field in ("ids", "num_records", "data"):
                given = getattr(self, field)
                object.__setattr__(self, field, getattr(found, field) if field == "ids" or given is None else given)
        if self.num_records is not None:
            number = whole_number("Selection.num_records", "num_records", self.num_records, 1, _MOST)
            object.__setattr__(self, "num_records", number)
        if not isinstance(self.data, (str, type(None))):
            raise ArsrcTypeError("Selection.data", "must be a text or None", data=self.data)

    def __len__(self) -> int:
        return self.ids.num_ids

    def __repr__(self) -> str:
        return f"<{len(self)} records>"

    @property
    def record_ids(self) -> NDArray[np.uint32]:
        """The records' ids in ascending order, u32[len(self)]: that of row `i` at place `i`."""
        return self.ids.take(np.arange(len(self))).astype(np.uint32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which `select=` takes the path of; host. The file is complete or not there.

        Raises:
            ArsrcWriteError: It cannot be written.
        """
        target = _path(path, "Selection.save")
        facts = {"form": self.ids.kind, "num_records": self.num_records, "data": self.data}
        try:
            write_whole(target, _KIND, facts, self.ids.to_bytes())
        except OSError as error:
            raise ArsrcWriteError("Selection.save", f"cannot be written ({error.strerror})", path=target) from error


def selection_of(value: Any) -> Selection | None:
    """Return what `select` means: a selection, the path of one, ids and ranges of them, or a mask; None is none.

    Raises:
        ArsrcTypeError: It is of another kind.
        ArsrcValueError: It selects nothing, a record twice, or what no data set has; or the file holds no selection.
        ArsrcReadError: The file cannot be read.
    """
    if value is None or isinstance(value, Selection):
        return value
    if isinstance(value, range):
        value = [value]
    if isinstance(value, (str, os.PathLike)):
        return _load(_path(value, "select"))
    is_one = getattr(value, "shape", None) == ()  # an array without axes
    if is_one or isinstance(value, bytes) or not isinstance(value, Iterable):
        what = "must be record ids and ranges (start, stop), a boolean array, a Selection or the path of one"
        raise ArsrcTypeError("select", what, select=value)
    is_list = isinstance(value, (list, tuple)) and all(type(one) is int for one in value)  # quick for many
    array = np.asarray(value) if is_list or isinstance(value, (np.ndarray, jax.Array)) else None
    if array is not None and array.dtype == bool and array.ndim == 1:
        _check_any(array.any())
        return Selection(IdSet.of_mask(array), len(array))
    if array is not None and array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
        return Selection(IdSet.of_ids(_ascending(array)))
    ranges = [pair for pair in sorted(parse_ranges("select", value)) if pair[0] < pair[1]]
    _check_any(ranges)
    for (_, stop), (start, _) in itertools.pairwise(ranges):
        if start < stop:
            raise _twice(start)
    return Selection(IdSet.of_ranges(ranges))


def parse_ranges(field: str, value: Iterable[Any]) -> Ranges:
    """Return record ids and ranges of them as ranges `[start, stop)`, in the order in which they stand.

    Raises:
        ArsrcTypeError: Something is no integer.
        ArsrcValueError: Something is no range of record ids.
    """
    ranges = []
    for entry in value:
        if isinstance(entry, range):
            if entry.step != 1:
                raise ArsrcValueError(field, "a range has steps of 1", **{field: entry})
            entry = entry.start, max(entry.start, entry.stop)
        try:
            is_one = np.ndim(entry) == 0  # scalars of NumPy and JAX too
        except ValueError:  # of lists in lists
            is_one = False
        pair = (entry, whole_number(field, field, entry, 0) + 1) if is_one else tuple(entry)
        if len(pair) != 2:
            raise ArsrcValueError(field, "a range is (start, stop)", **{field: entry})
        start = whole_number(field, field, pair[0], 0, _MOST - 1)
        stop = whole_number(field, field, pair[1], 0, _MOST)
        if stop < start:
            raise ArsrcValueError(field, "a range ends before it starts", **{field: pair})
        ranges.append((start, stop))
    return ranges


def _ascending(ids: NDArray[Any]) -> NDArray[np.uint32]:
    """Return ids in ascending order, checked."""
    _check_any(len(ids) > 0)
    ids = np.sort(ids)
    if ids[0] < 0 or ids[-1] >= _MOST:
        wrong = int(ids[0] if ids[0] < 0 else ids[-1])
        raise ArsrcValueError("select", f"a record id must be in [0, {_MOST})", select=wrong)
    ids = ids.astype(np.uint32)
    if (twice := ids[1:] == ids[:-1]).any():
        raise _twice(int(ids[1:][twice][0]))
    return ids


def _twice(record_id: int) -> ArsrcValueError:
    fix = "A selection is a set. To serve records more often, mix selections with weights: MixtureConfig."
    return ArsrcValueError("select", "selects a record twice", fix, select=record_id)


def _check_any(is_any: Any) -> None:
    if not is_any:
        raise ArsrcValueError("select", "selects no record")


def _load(path: str) -> Selection:
    try:
        facts, data = read_whole(path, _KIND)
        num_records, of_data = facts["num_records"], facts["data"]
        if not isinstance(num_records, (int, type(None))) or not isinstance(of_data, (str, type(None))):
            raise ValueError("it says something that is none of a selection")
        return Selection(IdSet.from_bytes(facts["form"], data), num_records, of_data)
    except OSError as error:
        what = f"a saved selection cannot be read ({error.strerror})"
        raise ArsrcReadError("select", what, path=path) from error
    except (ValueError, KeyError) as error:
        fix = "Give the path of what Selection.save wrote."
        raise ArsrcValueError("select", f"is no saved selection ({said(error)})", fix, path=path) from error


def _path(path: Any, where: str) -> str:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ArsrcTypeError(where, "must be a path", path=path)
    return absolute(text, where)
