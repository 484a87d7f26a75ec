"""What features of `tf.train.Example` hold, as arrays and back: numbers, lists, values of other codecs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.check import cast_batch
from arsrc.codecs.element_tree import array_text
from arsrc.codecs.example_heads import BYTES, FLOATS, INTEGERS
from arsrc.codecs.example_walk import Spans
from arsrc.codecs.field_advice import for_bytes
from arsrc.codecs.fields import encoded_by
from arsrc.codecs.pieces import end_to_end, pieces
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import from_stored, stored_dtype
from arsrc.codecs.varints import packed_varints, varint_values
from arsrc.errors import RecordError
from arsrc.record_batch import RecordBatch

_HELD: Mapping[int, str] = {BYTES: "bytes", FLOATS: "floats", INTEGERS: "integers"}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """How lists of numbers become a dtype.

    Attributes:
        dtype: The dtype.
        kind: Of the lists that fit: FLOATS or INTEGERS; BYTES alone for complex numbers, which no list holds.
        limits: Smallest and largest integer.
    """

    dtype: np.dtype[Any]
    kind: int = dataclasses.field(init=False)
    limits: tuple[int, int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        kind, limits = BYTES, (0, 1)
        if self.dtype == np.bool_:
            kind = INTEGERS
        elif jax.numpy.issubdtype(self.dtype, np.integer):
            info = jax.numpy.iinfo(self.dtype)
            kind, limits = INTEGERS, (int(info.min), min(int(info.max), 2**63 - 1))
        elif jax.numpy.issubdtype(self.dtype, np.floating):
            kind = FLOATS
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "limits", limits)

    def read(self, kind: int, data: NDArray[np.uint8], spans: Spans) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the items of all lists, one behind the other, and how many each holds, i64[n].

        Raises:
            RecordError: The lists are of another kind, or a value does not fit the dtype.
        """
        if kind != self.kind:
            raise RecordError(0, f"it holds {_HELD[kind]}, which are no {self.dtype.name}", "Choose another dtype.")
        if kind == FLOATS:
            return self._floats(data, spans), spans.lengths // 4
        counts, parts = varint_values(data, spans.begins, spans.lengths)
        items, done, (low, high) = np.empty(int(counts.sum()), self.dtype), 0, self.limits
        for stored in parts:
            if self._may_misfit(stored.dtype) and not (low <= int(stored.min()) and int(stored.max()) <= high):
                wrong = (stored < low) | (stored > high)
                raise self._misfit(counts, stored, wrong, done)
            items[done : done + len(stored)] = stored
            done += len(stored)
        return items, counts

    def _may_misfit(self, stored: np.dtype[Any]) -> bool:
        """Whether integers of a dtype need to be looked at, each."""
        info = np.iinfo(stored)
        return info.min < self.limits[0] or self.limits[1] < info.max

    def _floats(self, data: NDArray[np.uint8], spans: Spans) -> NDArray[Any]:
        """Return the items of lists of floats, of which no finite one is turned into an infinite one."""
        stored: NDArray[Any] = end_to_end(data, spans.begins, spans.lengths).view("<f4")
        if self.dtype == np.float32:
            return from_stored(stored, self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            items = stored.astype(self.dtype)
        wrong = ~np.isfinite(items) & np.isfinite(stored)
        if np.count_nonzero(wrong):
            raise self._misfit(spans.lengths // 4, stored, wrong)
        return items

    def _misfit(
        self, counts: NDArray[np.int64], stored: NDArray[Any], wrong: NDArray[np.bool_], before: int = 0
    ) -> RecordError:
        """Return the error of the first item that does not fit, with `before` items in front of those at hand."""
        first = int(wrong.argmax())
        row = int(np.searchsorted(np.cumsum(counts), before + first, "right"))
        what = f"it holds {stored[first]}, which does not fit {self.dtype.name}"
        return RecordError(row, what, "Choose a wider dtype.")

    def write(self, where: str, items: NDArray[Any], counts: NDArray[np.int64]) -> RecordBatch:
        """Return items as payloads of lists, `counts` in each.

        Raises:
            ArsrcValueError: One does not fit what lists hold.
        """
        if self.kind == INTEGERS:
            held = (
                items.astype(np.int64) if self.limits[1] < 2**63 - 1 else cast_batch(where, items, np.dtype("i8"), ())
            )
            content, widths = packed_varints(held)
        elif self.kind == FLOATS:
            wider = items if items.dtype == np.float64 else items.astype(np.float32)
            content = cast_batch(where, wider, np.dtype(np.float32), ()).astype("<f4").view(np.uint8)
            widths = np.full(len(items), 4)
        else:
            content = items.astype(stored_dtype(self.dtype)).view(np.uint8)
            widths = np.full(len(items), self.dtype.itemsize)
        before = np.concatenate(([0], np.cumsum(widths)))
        return RecordBatch(content, before[np.concatenate(([0], np.cumsum(counts)))])


@dataclasses.dataclass(frozen=True)
class ArrayFeature:
    """A list that is an array of fixed shape, or the bytes of one."""

    numbers: Numbers
    shape: tuple[int, ...]

    @property
    def kind(self) -> int:
        """What `encode` writes."""
        return self.numbers.kind

    def element_spec(self) -> PyTree:
        """Spec of one array."""
        return jax.ShapeDtypeStruct(self.shape, self.numbers.dtype)

    def decode(self, kind: int, data: NDArray[np.uint8], spans: Spans, records: RecordBatch) -> NDArray[Any]:
        """Return `dtype[n, *shape]`.

        Raises:
            RecordError: It holds something else.
        """
        del records
        dtype, shape = self.numbers.dtype, (len(spans.kinds), *self.shape)
        num_items = math.prod(self.shape)
        if kind == BYTES:
            num_bytes = num_items * dtype.itemsize
            self._check(spans.lengths, num_bytes, "bytes", (data, spans.begins))
            stored = pieces(data, spans.begins, num_bytes).view(stored_dtype(dtype))
            return from_stored(stored.reshape(shape), dtype)
        items, counts = self.numbers.read(kind, data, spans)
        self._check(counts, num_items, "values")
        return items.reshape(shape)

    def encode(self, where: str, values: Any) -> RecordBatch:
        """Return the payloads of `dtype[num_records, *shape]`."""
        array = cast_batch(where, values, self.numbers.dtype, self.shape)
        counts = np.full(len(array), math.prod(self.shape))
        return self.numbers.write(where, array.reshape(-1), counts)

    def _check(
        self,
        counts: NDArray[np.int64],
        wanted: int,
        items: str,
        raw: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> None:
        """Check that all hold as many as are wanted; `raw` is the bytes where they begin, if they hold bytes."""
        wrong = counts != wanted
        if np.count_nonzero(wrong):
            row = int(wrong.argmax())
            what = f"it holds {counts[row]} {items}, not {wanted} as {array_text(self.numbers.dtype, self.shape)} takes"
            fix = "Correct the shape, or read lists of different lengths with Ragged(dtype, max_length=...)."
            if raw is not None:
                data, begins = raw
                fix = for_bytes(data[begins[row] :][: min(12, counts[row])].tobytes(), fix)
            raise RecordError(row, what, fix)


@dataclasses.dataclass(frozen=True)
class RaggedFeature:
    """A list of any length, padded, or the bytes of one."""

    numbers: Numbers
    codec: Ragged

    @property
    def kind(self) -> int:
        """What `encode` writes."""
        return self.numbers.kind

    def element_spec(self) -> PyTree:
        """Spec of one list."""
        return self.codec.element_spec()

    def decode(self, kind: int, data: NDArray[np.uint8], spans: Spans, records: RecordBatch) -> PyTree:
        """Return what the codec gives.

        Raises:
            RecordError: It holds something else.
        """
        del records
        if kind == BYTES:
            return self.codec.decode_pieces(data, spans.begins, spans.lengths)
        items, counts = self.numbers.read(kind, data, spans)
        offsets = np.concatenate(([0], np.cumsum(counts))) * self.codec.dtype.itemsize
        return self.codec.decode(RecordBatch(items.astype(stored_dtype(self.codec.dtype)).view(np.uint8), offsets))

    def encode(self, where: str, values: Any) -> RecordBatch:
        """Return the payloads of what the codec encodes."""
        records = encoded_by(self.codec, where, values)
        items = from_stored(records.data.view(stored_dtype(self.codec.dtype)), self.codec.dtype)
        return self.numbers.write(where, items, records.lengths // self.codec.dtype.itemsize)


@dataclasses.dataclass(frozen=True)
class CodecFeature:
    """One bytes value that another codec decodes."""

    codec: Codec
    kind: int = BYTES

    def element_spec(self) -> PyTree:
        """Spec of one element."""
        return self.codec.element_spec()

    def decode(self, kind: int, data: NDArray[np.uint8], spans: Spans, records: RecordBatch) -> PyTree:
        """Return what the codec gives.

        Raises:
            RecordError: It holds something else.
        """
        if kind != BYTES:
            raise RecordError(0, f"it holds {_HELD[kind]}, where a codec needs bytes", "Name a dtype in its place.")
        return self.codec.decode(_values(data, spans, records))

    def encode(self, where: str, values: Any) -> RecordBatch:
        """Return what the codec encodes."""
        return encoded_by(self.codec, where, values)


Feature = ArrayFeature | RaggedFeature | CodecFeature


def feature_of(spec: Any) -> Feature:
    """Return how a feature is read, by its spec: `(dtype, shape)` or a codec."""
    if isinstance(spec, Ragged):
        return RaggedFeature(Numbers(spec.dtype), spec)
    if isinstance(spec, tuple):
        return ArrayFeature(Numbers(spec[0]), spec[1])
    return CodecFeature(spec)


def _values(data: NDArray[np.uint8], spans: Spans, records: RecordBatch) -> RecordBatch:
    """Return the bytes values for a codec, which are stopped as the records are."""
    offsets = np.concatenate(([0], np.cumsum(spans.lengths)))
    return dataclasses.replace(records, data=end_to_end(data, spans.begins, spans.lengths), offsets=offsets)
