"""`Ragged`: records of different lengths, padded to one length."""

import cmath
import dataclasses
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_dtype, cast_batch, whole_number
from arsrc.codecs.pieces import end_to_end, padded
from arsrc.codecs.struct_codec import from_stored, stored_dtype
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError
from arsrc.frozen import Terse
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, repr=False)
class Ragged(Terse):
    """Records of different lengths as `{"values": dtype[max_length], "length": i32[]}`.

    Attributes:
        dtype: Dtype of the items of a record, stored little-endian.
        max_length: Items of the longest record that fits.
        pad_value: What `values` holds behind the record's end.
        overflow: "error" refuses longer records, "truncate" keeps their first `max_length` items; `length`
            is then `max_length`.

    Raises:
        ArsrcTypeError: `dtype` is no dtype of JAX arrays, `max_length` no integer or `pad_value` no number
            (at construction).
        ArsrcValueError: `max_length` is not in `[1, 2**31)`, `pad_value` does not fit the dtype, or
            `overflow` is another word (at construction).
    """

    dtype: Any = "uint8"
    _: dataclasses.KW_ONLY
    max_length: int
    # Compared by its bytes: NaN is unequal to itself, and equal configs must trace once.
    pad_value: Any = dataclasses.field(default=0, compare=False)
    overflow: Literal["error", "truncate"] = "error"
    _pad_bytes: bytes = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        dtype = array_dtype("Ragged.dtype", self.dtype)
        max_length = whole_number("Ragged.max_length", "max_length", self.max_length, 1)
        if max_length >= 2**31:
            raise ArsrcValueError("Ragged.max_length", "must be below 2**31", max_length=max_length)
        if self.overflow not in ("error", "truncate"):
            what = "must be 'error' or 'truncate'"
            raise ArsrcValueError("Ragged.overflow", what, overflow=self.overflow)
        pad = _pad(self.pad_value, dtype)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "max_length", max_length)
        object.__setattr__(self, "pad_value", pad.item())
        object.__setattr__(self, "_pad_bytes", pad.tobytes())

    def resolve(self, first_record: bytes) -> "Ragged":
        """Check the first record; host only.

        Raises:
            RecordError: It does not fit.
        """
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Spec of one element: `{"values": dtype[max_length], "length": i32[]}`."""
        return {
            "values": jax.ShapeDtypeStruct((self.max_length,), self.dtype),
            "length": jax.ShapeDtypeStruct((), np.int32),
        }

    def decode(self, records: RecordBatch) -> dict[str, NDArray[Any]]:
        """Return `{"values": dtype[num_records, max_length], "length": i32[num_records]}`. Host only.

        Raises:
            RecordError: A record is no whole number of items, or longer than `max_length` with
                `overflow="error"`.
        """
        if self.dtype.itemsize == 1:
            return self.decode_pieces(records.data, records.offsets[:-1], records.lengths)
        lengths = self.num_items(records.lengths)  # i64[num_records]
        kept = np.minimum(lengths, self.max_length)
        first, last = int(records.offsets[0]), int(records.offsets[-1])
        items = from_stored(records.data[first:last].view(stored_dtype(self.dtype)), self.dtype)
        if (kept < lengths).any():
            items = items[_runs(kept, lengths - kept)]
        values = np.empty((len(records), self.max_length), self.dtype)
        values[...] = np.frombuffer(self._pad_bytes, self.dtype)
        values[_runs(kept, self.max_length - kept).reshape(values.shape)] = items
        return {"values": values, "length": kept.astype(np.int32)}

    def decode_pieces(
        self, data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Decode records that lie anywhere in `data`, of some lengths in bytes; see `decode`. Host only."""
        if self.dtype.itemsize > 1:
            offsets = np.concatenate(([0], np.cumsum(lengths)))
            return self.decode(RecordBatch(end_to_end(data, begins, lengths), offsets))
        kept = np.minimum(self.num_items(lengths), self.max_length)
        values = padded(data, begins, kept, self.max_length, self._pad_bytes[0])
        return {
            "values": from_stored(values.view(stored_dtype(self.dtype)), self.dtype),
            "length": kept.astype(np.int32),
        }

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode `{"values": dtype[num_records, max_length], "length": integer[num_records]}`. Host only.

        What `values` holds behind `length` is not written.

        Raises:
            ArsrcTypeError: No such dict, or a dtype of another kind.
            ArsrcValueError: A shape differs, a value does not fit, or a length is not in `[0, max_length]`.
        """
        if not isinstance(elements, dict) or set(elements) != {"values", "length"}:
            what = 'elements must be a dict of "values" and "length"'
            got = sorted(map(str, elements)) if isinstance(elements, dict) else type(elements).__name__
            raise ArsrcTypeError("Ragged.encode", what, elements=got)
        values = cast_batch("Ragged.encode 'values'", elements["values"], self.dtype, (self.max_length,))
        lengths = cast_batch("Ragged.encode 'length'", elements["length"], np.dtype(np.int64), ())
        if len(values) != len(lengths):
            shapes = {"values": values.shape, "length": lengths.shape}
            raise ArsrcValueError("Ragged.encode", "leading axes differ", **shapes)
        wrong = (lengths < 0) | (lengths > self.max_length)
        if wrong.any():
            what = f"a length is not in [0, {self.max_length}]"
            raise ArsrcValueError("Ragged.encode", what, length=int(lengths[wrong][0]))
        items = values[_runs(lengths, self.max_length - lengths).reshape(values.shape)]
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths * self.dtype.itemsize, out=offsets[1:])
        return RecordBatch(items.astype(stored_dtype(self.dtype)).view(np.uint8), offsets)

    def num_items(self, num_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items of records of some lengths in bytes, i64[num_records], those that are cut off too.

        Raises:
            RecordError: As for `decode`.
        """
        lengths, rest = np.divmod(num_bytes, self.dtype.itemsize)
        if rest.any():
            row = int((rest != 0).argmax())
            what = f"the record has {num_bytes[row]} bytes, no whole number of {self.dtype.name} items"
            fix = f"Choose a dtype whose {self.dtype.itemsize} bytes divide every record's length."
            raise RecordError(row, what, fix)
        over = lengths > self.max_length
        if self.overflow == "error" and np.count_nonzero(over):
            row = int(over.argmax())
            what = f"the record has {lengths[row]} items, max_length is {self.max_length}"
            raise RecordError(row, what, 'Raise max_length, or cut longer records with overflow="truncate".')
        return lengths


def _runs(kept: NDArray[np.int64], rest: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool[sum(kept + rest)]: for each record, `kept` times True and `rest` times False."""
    # Several times faster than comparing a range with the lengths.
    return np.repeat(np.tile([True, False], len(kept)), np.stack([kept, rest], axis=1).reshape(-1))


def _pad(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `dtype[1]` that holds `value`, unchanged but for the rounding of floats."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, (int, float, complex)) or (isinstance(value, complex) and dtype.kind != "c"):
        raise ArsrcTypeError("Ragged.pad_value", f"is no number of {dtype.name}", pad_value=value)
    try:
        with np.errstate(all="ignore"):
            pad = np.array([value]).astype(dtype)
    except (OverflowError, TypeError):  # an integer beyond 64 bits
        fits = False
    else:
        kept = pad.item()
        is_float = isinstance(kept, (float, complex)) and not isinstance(value, int)
        rounded = is_float and cmath.isfinite(kept) and cmath.isfinite(value)
        fits = kept == value or rounded or (kept != kept and value != value)
    if not fits:
        raise ArsrcValueError("Ragged.pad_value", f"does not fit {dtype.name}", pad_value=value)
    return pad
