"""`Struct`: records that are named fields of fixed dtype and shape, laid end to end."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.bytes_codec import equal_rows
from arsrc.codecs.check import array_spec, cast_batch
from arsrc.codecs.element_tree import array_text
from arsrc.codecs.fields import check_names, common_length, named
from arsrc.record_batch import RecordBatch

Field = tuple[str, np.dtype[Any], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Struct:
    """Named fields of fixed dtype and shape, packed without gaps, little-endian, in the order given.

    >>> Struct({"image": ("uint8", (28, 28)), "label": "int32"}).record_bytes
    788

    Attributes:
        fields: Mapping of names to a dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`. Kept as a tuple of
            `(name, dtype, shape)`, which is accepted as well.

    Raises:
        ArsrcTypeError: A name is no string, or a spec stands for no array (at construction).
        ArsrcValueError: There is no field, a name comes twice, or a size is negative (at construction).
    """

    fields: Mapping[str, Any] | tuple[Field, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _normal_fields(self.fields))

    def __repr__(self) -> str:
        given = {name: (dtype.name, shape) if shape else dtype.name for name, dtype, shape in self._fields()}
        return f"Struct({given})"

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return self._packed().itemsize

    def resolve(self, first_record: bytes) -> "Struct":
        """Check the first record's length; host only.

        Raises:
            RecordError: The fields take another number of bytes.
        """
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Spec of one element: a dict of the fields."""
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype, shape in self._fields()}

    def decode(self, records: RecordBatch) -> dict[str, NDArray[Any]]:
        """Return a dict of C-contiguous `dtype[num_records, *shape]`. Host only.

        A byte of a bool field is True unless it is zero.

        Raises:
            RecordError: A record's length is not that of the fields.
        """
        packed = self._packed()
        rows = equal_rows(
            records,
            packed.itemsize,
            f" as the fields take ({self._text()})",
            "Compare the fields' order, dtypes and shapes with the writer's.",
        )
        view = np.ndarray(len(rows), packed, rows)  # one structured item a record, not aligned
        return {name: from_stored(view[name], dtype) for name, dtype, _ in self._fields()}

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode a mapping of `dtype[num_records, *shape]`. Host only.

        Integers and floats may have another width as long as every value fits; floats are rounded.

        Raises:
            ArsrcTypeError: No mapping, or a field has a dtype of another kind.
            ArsrcValueError: Names, shapes or leading axes differ, or a value does not fit.
        """
        check_names("Struct.encode", elements, [name for name, _, _ in self._fields()])
        columns = {
            name: cast_batch(f"Struct.encode field {name!r}", elements[name], dtype, shape)
            for name, dtype, shape in self._fields()
        }
        rows = np.empty(common_length("Struct.encode", columns), self._packed())
        for name, column in columns.items():
            rows[name] = column
        offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.itemsize
        return RecordBatch(rows.view(np.uint8), offsets)

    def _fields(self) -> tuple[Field, ...]:
        assert isinstance(self.fields, tuple)
        return self.fields

    def _packed(self) -> np.dtype[Any]:
        return np.dtype([(name, stored_dtype(dtype), shape) for name, dtype, shape in self._fields()])

    def _text(self) -> str:
        return ", ".join(f"{name}: {array_text(dtype, shape)}" for name, dtype, shape in self._fields())


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype as records hold it: little-endian, and bytes for bools."""
    # A bool whose byte is neither 0 nor 1 is undefined behaviour: a view would make some, a cast does not.
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")


def from_stored(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of `stored_dtype(dtype)` as a C-contiguous, aligned one of `dtype`."""
    native = np.ascontiguousarray(array, dtype)
    return native if native.flags.aligned else native.copy()


def _normal_fields(fields: Any) -> tuple[Field, ...]:
    if isinstance(fields, tuple) and all(isinstance(entry, tuple) and len(entry) == 3 for entry in fields):
        fields = tuple((name, (dtype, shape)) for name, dtype, shape in fields)
    example = 'Struct({"image": ("uint8", (28, 28)), "label": "int32"})'
    return tuple((name, *spec) for name, spec in named("Struct.fields", fields, example, array_spec))
