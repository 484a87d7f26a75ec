"""NumPy's npz archives: rows of arrays that share their leading axis, as `Struct` records."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from arsrc.cli.inputs.blocks import InputFile
from arsrc.cli.inputs.damage import COPY, damage
from arsrc.cli.inputs.seekable import Seekable
from arsrc.codecs import Struct
from arsrc.errors import ArsrcError, ArsrcValueError

_STEP_BYTES = 4 << 20  # of rows that are read at once
_BAD = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, KeyError, SyntaxError)


class _Column(NamedTuple):
    """One array of an archive."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool


class Arrays:
    """The rows of the arrays of one or several archives.

    Attributes:
        codec: Encodes rows, and decodes them.
        num_records: How many there are.

    Raises:
        ArsrcReadError: A file is no archive of arrays, or damaged.
        ArsrcValueError: The arrays of an archive have no common leading axis, or differ between archives.
        ArsrcTypeError: Those of one have a dtype that no JAX array has.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.num_records = 0
        for path in paths:
            columns = _columns(path)
            codec = _codec(path, columns)
            if path == paths[0]:
                self.codec = codec
            elif codec != self.codec:
                got = {"first": str(self.codec), "path": path, "here": str(codec)}
                raise ArsrcValueError("convert", "npz files hold other arrays than the first one", **got)
            self.num_records += columns[0].shape[0]

    def __iter__(self) -> Iterator[list[bytes]]:
        """Yield the records, some at a time."""
        for path in self._paths:
            yield from self._rows(path)

    def _rows(self, path: str) -> Iterator[list[bytes]]:
        columns = _columns(path)
        step = max(1, _STEP_BYTES // max(1, self.codec.record_bytes))
        at, num_rows = 0, columns[0].shape[0]
        with _reading(path), contextlib.ExitStack() as stack:
            archive = stack.enter_context(_archive(path))
            open_columns = [_OpenColumn(path, archive, column, stack) for column in columns]
            while at < num_rows:
                size = min(step, num_rows - at)
                rows = {one.column.name: one.read(size) for one in open_columns}
                encoded = self.codec.encode(rows)
                yield [encoded[row] for row in range(size)]
                at += size
            for one in open_columns:
                one.end()


class _OpenColumn:
    """An array that is read some rows at a time."""

    def __init__(self, path: str, archive: zipfile.ZipFile, column: _Column, stack: contextlib.ExitStack) -> None:
        self.column, self._path = column, path
        self._file = stack.enter_context(archive.open(_member(column.name)))
        self._whole: NDArray[Any] | None = None
        self._at = 0
        if column.is_fortran and len(column.shape) > 1:  # whose rows are spread over all of it
            self._whole = npy.read_array(self._file, allow_pickle=False)
        else:
            _read_header(self._file)

    def read(self, num_rows: int) -> NDArray[Any]:
        _, dtype, shape, _ = self.column
        self._at += num_rows
        if self._whole is not None:
            return self._whole[self._at - num_rows : self._at]
        num_bytes = num_rows * dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        data = self._file.read(num_bytes)
        if len(data) < num_bytes:
            raise damage(self._path, "an array ends too early", array=self.column.name)
        return np.ndarray((num_rows, *shape[1:]), dtype, data)

    def end(self) -> None:
        """Read to the end: only there the checksum of a member is compared."""
        if self._file.read(1):
            raise damage(self._path, "an array is longer than its header says", array=self.column.name)


def _columns(path: str) -> list[_Column]:
    with _reading(path), _archive(path) as archive:
        columns = []
        for member in archive.namelist():
            with archive.open(member) as file:
                shape, is_fortran, dtype = _read_header(file)
            if dtype.hasobject:
                fix = "Objects are pickled, and unpickling runs code: save arrays of numbers."
                raise ArsrcValueError("convert", "an array holds Python objects", fix, path=path, array=member)
            columns.append(_Column(member.removesuffix(".npy"), dtype, shape, is_fortran))
    lengths = {column.name: column.shape[0] if column.shape else "no axis" for column in columns}
    if len(set(lengths.values())) != 1 or "no axis" in lengths.values():
        fix = "A record is made of one row of each array: save those that have one for each record, and no others."
        raise ArsrcValueError("convert", "the arrays have no common leading axis", fix, path=path, lengths=lengths)
    return columns


def _codec(path: str, columns: Sequence[_Column]) -> Struct:
    try:
        return Struct({column.name: (column.dtype, column.shape[1:]) for column in columns})
    except ArsrcError as error:
        raise error.naming(path=path) from None


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return header


def _member(name: str) -> str:
    return f"{name}.npy"


@contextlib.contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    with contextlib.closing(InputFile(path)) as file, zipfile.ZipFile(Seekable(file)) as archive:
        yield archive


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Make what goes wrong with an archive the error of a damaged file."""
    try:
        yield
    except ArsrcError:
        raise
    except _BAD as error:
        raise damage(path, f"is no whole npz file ({error})", COPY) from error
