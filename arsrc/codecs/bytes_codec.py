"""`Bytes`: records of one length as rows of bytes."""

import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import cast_batch, whole_number
from arsrc.codecs.element_tree import array_text
from arsrc.errors import ArsrcValueError, RecordError
from arsrc.frozen import Terse
from arsrc.record_batch import RecordBatch, uniform_offsets


@dataclasses.dataclass(frozen=True, repr=False)
class Bytes(Terse):
    """Records of one length as `u8[num_bytes]`: the default codec.

    Attributes:
        num_bytes: Bytes of every record; None takes it from the first record of the data set.

    Raises:
        ArsrcTypeError: `num_bytes` is no integer (at construction).
        ArsrcValueError: `num_bytes` is negative (at construction).
    """

    num_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.num_bytes is not None:
            num_bytes = whole_number("Bytes.num_bytes", "num_bytes", self.num_bytes, 0)
            object.__setattr__(self, "num_bytes", num_bytes)

    def resolve(self, first_record: bytes) -> "Bytes":
        """Return the codec with `num_bytes` filled in; host only.

        Raises:
            RecordError: `num_bytes` is given and the record has another length.
        """
        resolved = Bytes(len(first_record)) if self.num_bytes is None else self
        resolved.decode(RecordBatch.from_records([first_record]))
        return resolved

    def element_spec(self) -> PyTree:
        """Spec of one element, `u8[num_bytes]`.

        Raises:
            ArsrcValueError: `num_bytes` is not known yet.
        """
        return jax.ShapeDtypeStruct((self._size(),), np.uint8)

    def decode(self, records: RecordBatch) -> NDArray[np.uint8]:
        """Return `u8[num_records, num_bytes]`: a view of the records' bytes, nothing is copied. Host only.

        Raises:
            RecordError: A record has another length.
        """
        fix = "Read records of different lengths with the codec Ragged(max_length=...)."
        return equal_rows(records, self._size(), fix=fix)

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode `u8[num_records, num_bytes]`; without `num_bytes`, rows of any length. Host only.

        Raises:
            ArsrcTypeError: The dtype is not that of bytes.
            ArsrcValueError: The shape differs.
        """
        array: NDArray[Any] = np.asarray(elements)
        size = array.shape[1] if self.num_bytes is None and array.ndim == 2 else self.num_bytes
        if size is None:
            what, fix = "elements must be u8[num_records, num_bytes]", "Write bytes, or name a codec, such as Struct."
            found = array_text(array.dtype, array.shape)
            raise ArsrcValueError("Bytes.encode", what, fix, elements=found)
        rows = cast_batch("Bytes.encode", array, np.dtype(np.uint8), (size,))
        return RecordBatch(rows.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * size)

    def _size(self) -> int:
        if self.num_bytes is None:
            fix = "Call resolve(first_record), or give num_bytes."
            raise ArsrcValueError("Bytes.num_bytes", "is not known yet", fix)
        return self.num_bytes


def equal_rows(records: RecordBatch, num_bytes: int, why: str = "", fix: str = "") -> NDArray[np.uint8]:
    """Return records of one length as a view `u8[num_records, num_bytes]`.

    Raises:
        RecordError: A record has another length; the text ends with `why` and `fix`.
    """
    if records.offsets is not uniform_offsets(len(records), num_bytes):
        wrong = records.lengths != num_bytes  # bool[num_records]
        if wrong.any():
            row = int(wrong.argmax())
            raise RecordError(row, f"the record has {records.lengths[row]} bytes, not {num_bytes}{why}", fix)
    start = int(records.offsets[0])
    return records.data[start : start + len(records) * num_bytes].reshape(len(records), num_bytes)
