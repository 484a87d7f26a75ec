"""The NPY format, in which numpy.save writes one array: a header that says dtype and shape, and the items.

Described at https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

import ast
import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.element_tree import array_text
from arsrc.codecs.struct_codec import from_stored
from arsrc.errors import RecordError

MAGIC = b"\x93NUMPY"
MOST_HEADER_BYTES = 10_012
"""Longest header that is read, with what stands before it: NumPy's own bound. Those of plain arrays have 128 bytes."""
_ALIGNMENT = 64  # bytes, of the items in the file
_PLAIN = re.compile(r"[<>|=]?(\?|[biufcV]\d{1,3})")  # dtypes without names, objects, dates and texts
_AGAIN = "Write the array again by numpy.save."


class Layout(NamedTuple):
    """What a header says.

    Attributes:
        dtype: As stored, in the byte order of the file.
        shape: Of the array.
        is_fortran: Whether the first axis is the one that runs fastest.
        start: Bytes of the header; the items follow.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    start: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole: header and items."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    def is_of(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether the items are of a dtype, in any byte order; numpy.save keeps but the size of ml_dtypes' ones."""
        stored = self.dtype.newbyteorder("=")
        is_raw = stored.kind == dtype.kind == "V" and stored.itemsize == dtype.itemsize
        return self.shape == shape and (is_raw or stored == dtype)

    def arrays(self, items: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the items of several arrays, `u8[n, num_bytes - start]`, as a C-contiguous `dtype[n, *shape]`."""
        raw = np.ascontiguousarray(items).reshape(-1)
        # A bool whose byte is neither 0 nor 1 is undefined behaviour: a view would make some, a cast does not.
        stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype if dtype.kind == "V" else self.dtype
        if self.is_fortran:
            array = raw.view(stored).reshape(len(items), *self.shape[::-1])
            return from_stored(array.transpose(0, *range(array.ndim - 1, 0, -1)), dtype)
        return from_stored(raw.view(stored).reshape(len(items), *self.shape), dtype)


def layout_of(record: NDArray[np.uint8], row: int) -> Layout:
    """Return what the header of a record says, which has to be true of its length.

    Args:
        record: u8[n], the record's bytes.
        row: Its row, for errors.

    Raises:
        RecordError: There is no header that can be read, it says another length, or there are objects or texts.
    """
    prefix = record[:12].tobytes()
    major, minor = prefix[6:8] if len(prefix) == 12 else (0, 0)
    if not prefix.startswith(MAGIC) or major not in (1, 2, 3) or minor:
        raise RecordError(row, "the record is no array as numpy.save writes it", "Look at the first bytes of the file.")
    first = 10 if major == 1 else 12
    length = int.from_bytes(prefix[8:first], "little")
    if length > min(MOST_HEADER_BYTES, len(record)) - first:
        raise RecordError(row, f"the record's header is said to have {length} bytes, the record has {len(record)}")
    found = _parsed(record[first : first + length].tobytes(), first + length)
    if isinstance(found, str):
        raise RecordError(row, found, _AGAIN)
    if found.num_bytes != len(record):
        array = array_text(found.dtype, found.shape)
        raise RecordError(row, f"the record has {len(record)} bytes, its header says {found.num_bytes}: {array}")
    return found


def header_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of a little-endian array in C order, as numpy.save writes it."""
    stored = dtype.newbyteorder("<").str if dtype.kind != "V" else f"|V{dtype.itemsize}"
    text = f"{{'descr': {stored!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    padding = -(len(MAGIC) + 4 + len(text) + 1) % _ALIGNMENT
    length = len(text) + padding + 1
    return MAGIC + bytes([1, 0]) + length.to_bytes(2, "little") + text + b" " * padding + b"\n"


@functools.lru_cache(64)
def _parsed(header: bytes, start: int) -> Layout | str:
    """Return what a header's text says, or what is wrong with it."""
    try:
        found = ast.literal_eval(header.decode())
        if not isinstance(found, dict) or found.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError
        descr, is_fortran, shape = found["descr"], found["fortran_order"], found["shape"]
        is_shape = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not is_shape or type(is_fortran) is not bool:
            raise ValueError
    except (Exception, MemoryError):  # of the parser, for what is nested too deep
        return "the record's header cannot be read"
    what = f"the record is an array of {descr!r}, which is no dtype of numbers"
    if not isinstance(descr, str) or not _PLAIN.fullmatch(descr):
        return f"{what}, and objects are not unpickled" if "O" in str(descr) else what
    try:
        dtype = np.dtype(descr)
    except TypeError:
        return what
    return Layout(dtype, shape, is_fortran, start)
