"""`Npy`: records that are arrays as numpy.save writes them."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_dtype, array_spec, cast_batch
from arsrc.codecs.element_tree import array_text, both_sides
from arsrc.codecs.fields import field_text
from arsrc.codecs.npy_format import header_of, layout_of
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError
from arsrc.record_batch import RecordBatch, uniform_offsets


@dataclasses.dataclass(frozen=True)
class Npy:
    """Records that are arrays of one dtype and shape, as numpy.save writes them. Nothing is unpickled.

    Either byte order and either order of the axes is read. Of ml_dtypes' dtypes (bfloat16, ...) numpy.save keeps the
    size alone: give `spec` for these.

    Attributes:
        spec: A dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`, kept as the last; None takes it from the first
            record of the data set.

    Raises:
        ArsrcTypeError: `spec` stands for no array (at construction).
        ArsrcValueError: A size is negative (at construction).
    """

    spec: Any = None

    def __post_init__(self) -> None:
        if self.spec is not None:
            dtype, shape = array_spec("Npy.spec", self.spec)
            object.__setattr__(self, "spec", jax.ShapeDtypeStruct(shape, dtype))

    def __repr__(self) -> str:
        return "Npy()" if self.spec is None else f"Npy({field_text(self._known())!r})"

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs."""
        return self._known()

    def resolve(self, first_record: bytes) -> "Npy":
        """Return the codec with `spec` filled in; host only.

        Raises:
            RecordError: The record is no such array, or another one than `spec` says.
        """
        resolved = self
        if self.spec is None:
            layout = layout_of(np.frombuffer(first_record, np.uint8), 0)
            try:
                resolved = Npy((array_dtype("Npy.spec", layout.dtype), layout.shape))
            except ArsrcTypeError as error:
                what = f"the record holds {array_text(layout.dtype, layout.shape)}, which JAX arrays cannot be"
                raise RecordError(0, what, 'For ml_dtypes\' dtypes give the spec: Npy(("bfloat16", ...)).') from error
        resolved.decode(RecordBatch.from_records([first_record]))
        return resolved

    def element_spec(self) -> jax.ShapeDtypeStruct:
        """Spec of one element, `spec`.

        Raises:
            ArsrcValueError: `spec` is not known yet.
        """
        dtype, shape = self._known()
        return jax.ShapeDtypeStruct(shape, dtype)

    def decode(self, records: RecordBatch) -> NDArray[Any]:
        """Return `dtype[num_records, *shape]`, C-contiguous. Host only.

        Records with the same header are copied at once.

        Raises:
            RecordError: A record is no such array, or another one than `spec` says.
        """
        return decoded(records, *self._known())

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode `dtype[num_records, *shape]`; without `spec`, of any dtype and shape. Host only.

        Raises:
            ArsrcTypeError: The dtype is of another kind than that of `spec`, or none of numbers.
            ArsrcValueError: The shape differs, or a value does not fit the dtype.
        """
        array: NDArray[Any] = np.asarray(elements)
        if self.spec is None:
            dtype, shape = array_dtype("Npy.encode", array.dtype), array.shape[1:]
        else:
            dtype, shape = self._known()
        return encoded("Npy.encode", elements, dtype, shape)

    def _known(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        if self.spec is None:
            fix = "Call resolve(first_record), or give spec."
            raise ArsrcValueError("Npy.spec", "is not known yet", fix)
        return self.spec.dtype, self.spec.shape


def decoded(records: RecordBatch, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `dtype[num_records, *shape]`, C-contiguous; see `Npy.decode`."""
    lengths = records.lengths  # i64[num_records]
    rows = np.arange(len(records))
    if len(rows) and (lengths == lengths[0]).all():
        block = records.data[records.offsets[0] : records.offsets[-1]].reshape(len(rows), -1)
        return _decoded_alike(block, rows, dtype, shape)
    arrays = np.empty((len(rows), *shape), dtype)
    for length in np.unique(lengths):
        some = rows[lengths == length]
        block = np.stack([records.data[start : start + length] for start in records.offsets[some]])
        arrays[some] = _decoded_alike(block, some, dtype, shape)
    return arrays


def _decoded_alike(
    block: NDArray[np.uint8], rows: NDArray[np.int64], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the arrays of records of one length, `u8[len(rows), num_bytes]`, which are these rows of the batch."""
    arrays: NDArray[Any] | None = None
    left = np.arange(len(block))
    while len(left):
        some = block if arrays is None else block[left]
        layout = layout_of(some[0], int(rows[left[0]]))
        if not layout.is_of(dtype, shape):
            sides = both_sides(array_text(dtype, shape), array_text(layout.dtype, layout.shape))
            raise RecordError(int(rows[left[0]]), "the record holds another array than the spec says", sides)
        is_alike = (some[:, : layout.start] == some[0, : layout.start]).all(axis=1)
        if is_alike.all() and arrays is None:
            return layout.arrays(some[:, layout.start :], dtype)
        arrays = np.empty((len(block), *shape), dtype) if arrays is None else arrays
        arrays[left[is_alike]] = layout.arrays(some[is_alike, layout.start :], dtype)
        left = left[~is_alike]
    assert arrays is not None
    return arrays


def encoded(where: str, elements: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> RecordBatch:
    """Return `dtype[num_records, *shape]`, each as numpy.save writes it; errors name `where` as the place."""
    array = cast_batch(where, elements, dtype, shape)
    header = np.frombuffer(header_of(dtype, shape), np.uint8)
    items = np.ascontiguousarray(array.astype(stored_dtype(dtype))).reshape(len(array), -1)
    rows = np.empty((len(array), len(header) + math.prod(shape) * dtype.itemsize), np.uint8)
    rows[:, : len(header)] = header
    rows[:, len(header) :] = items.view(np.uint8)
    return RecordBatch(rows.reshape(-1), uniform_offsets(*rows.shape))
