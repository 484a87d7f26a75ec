"""`MsgPack`: records that are MessagePack maps."""

import dataclasses
from typing import Any

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import cast_batch
from arsrc.codecs.columns import Holds
from arsrc.codecs.document_codec import DocumentCodec
from arsrc.codecs.fields import encoded_by
from arsrc.codecs.numbers import as_wide
from arsrc.codecs.struct_codec import stored_dtype


@dataclasses.dataclass(frozen=True, repr=False)
class MsgPack(DocumentCodec):
    """Records that are MessagePack maps, of which the fields that are named become a dict of arrays.

    What is not named is skipped. Needs msgspec: `pip install 'arsrc[formats]'`.

    >>> MsgPack({"image": ("uint8", (28, 28)), "label": "int32"}, default={"label": -1}).element_spec()["label"].dtype
    dtype('int32')

    Attributes:
        fields: Mapping of names to a dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`, whose value is a number or
            bool, nested lists of them, or bytes, which are the items, little-endian, in C order; or to a codec, whose
            record is a value of bytes or of text (as UTF-8). For `Ragged` it may be a list of numbers. Bools are taken
            for integers, integers for floats that hold them exactly, and nothing the other way round: 1 is no bool
            here. Extension types, Flax's arrays among them, and msgpack-numpy's maps are no arrays here: read such
            records by `Map`.
        default: Mapping of names to what stands for a field that a record has not, or has as null: an array; for
            `Ragged`, one of at most `max_length` items, or of bytes a text; for another codec, an element. A field that
            is not named here must be in every record.

    Raises:
        ArsrcTypeError: A name is no string, or a spec stands for no array (at construction).
        ArsrcValueError: There is no field, a name comes twice, a size is negative, a default does not fit its field, or
            msgspec is not installed (at construction).
    """

    _format = "msgpack"

    def _values(self, where: str, holds: Holds, elements: PyTree) -> list[Any]:
        if not isinstance(holds, tuple):
            return list(encoded_by(holds, where, elements))
        dtype, shape = holds
        array = cast_batch(where, elements, dtype, shape)
        if not shape and dtype.kind != "c":
            return as_wide(array).tolist()
        return [row.tobytes() for row in array.astype(stored_dtype(dtype), copy=False)]
