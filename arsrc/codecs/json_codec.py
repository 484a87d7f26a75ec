"""`Json`: records that are JSON objects."""

import dataclasses
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import cast_batch
from arsrc.codecs.columns import Holds
from arsrc.codecs.document_codec import DocumentCodec
from arsrc.codecs.fields import encoded_by
from arsrc.codecs.numbers import as_wide
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import from_stored, stored_dtype
from arsrc.errors import ArsrcTypeError, ArsrcValueError


@dataclasses.dataclass(frozen=True, repr=False)
class Json(DocumentCodec):
    """Records that are JSON objects, of which the fields that are named become a dict of arrays.

    What is not named is skipped. `encode` writes lists for `Ragged`, where there were texts too. Needs msgspec:
    `pip install 'arsrc[formats]'`.

    >>> Json({"position": ("float32", 2), "text": Ragged(max_length=100)}).element_spec()["position"].shape
    (2,)

    Attributes:
        fields: Mapping of names to a dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`, whose value is a number,
            true or false, or nested lists of them; to `Ragged`, whose value is a list of numbers, or of bytes a text;
            or to any other codec, whose record is the UTF-8 of a text. Bools are taken for integers, integers
            for floats that hold them exactly, and nothing the other way round: 1 is no bool here.
        default: Mapping of names to what stands for a field that a record has not, or has as null: an array; for
            `Ragged`, one of at most `max_length` items, or of bytes a text; for another codec, an element. A field that
            is not named here must be in every record.

    Raises:
        ArsrcTypeError: A name is no string, a spec stands for no array, or a dtype is complex, which JSON cannot hold
            (at construction).
        ArsrcValueError: There is no field, a name comes twice, a size is negative, a default does not fit its field, or
            msgspec is not installed (at construction).
    """

    _format = "json"

    def _holds(self, where: str, value: Any) -> Holds:
        holds = super()._holds(where, value)
        dtype = holds[0] if isinstance(holds, tuple) else holds.dtype if isinstance(holds, Ragged) else None
        if dtype is not None and dtype.kind == "c":
            raise ArsrcTypeError(where, "is complex, and JSON has no such numbers", dtype=dtype.name)
        return holds

    def _values(self, where: str, holds: Holds, elements: PyTree) -> list[Any]:
        if isinstance(holds, tuple):
            return _numbers(where, cast_batch(where, elements, *holds))
        records = encoded_by(holds, where, elements)
        if isinstance(holds, Ragged):
            items = from_stored(records.data.view(stored_dtype(holds.dtype)), holds.dtype)
            bounds = (records.offsets // holds.dtype.itemsize).tolist()
            flat = _numbers(where, items)
            return [flat[start:stop] for start, stop in itertools.pairwise(bounds)]
        try:
            return [record.decode() for record in records]
        except UnicodeDecodeError as error:
            what = f"{type(holds).__name__} gave bytes that are no text, which JSON cannot hold"
            raise ArsrcValueError(where, what, "Declare arrays by dtype and shape.") from error


def _numbers(where: str, array: NDArray[Any]) -> list[Any]:
    """Return an array as nested lists of Python's numbers, which JSON must be able to hold."""
    wide = as_wide(array)
    if wide.dtype.kind == "f" and not np.isfinite(wide).all():
        wrong = wide[~np.isfinite(wide)][0].item()
        raise ArsrcValueError(where, "holds a number that is not finite, and JSON has none", value=wrong)
    return wide.tolist()
