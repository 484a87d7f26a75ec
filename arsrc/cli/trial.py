"""A codec that is only guessed, tried on records: what decodes them quickly, just to see whether they fit."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

import arsrc.codecs
from arsrc.cli.image_heads import image_head
from arsrc.codecs import Codec, Image, Ragged, RecordBatch
from arsrc.errors import RecordError


@dataclasses.dataclass(frozen=True)
class _Heads:
    """Stands for `Image`: looks at the first bytes of images alone."""

    image: Image

    def resolve(self, first_record: bytes) -> "_Heads":
        del first_record
        return self

    def element_spec(self) -> Any:
        return jax.ShapeDtypeStruct((), np.uint8)

    def decode(self, records: RecordBatch) -> NDArray[np.uint8]:
        for row, record in enumerate(records):
            head = image_head(record)
            if head is None:
                raise RecordError(row, "the bytes are no image")
            if self.image.fit == "exact" and (head.height, head.width) != tuple(self.image.shape[:2]):
                raise RecordError(row, f"the image has {head.height} x {head.width} pixels")
        return np.zeros(len(records), np.uint8)

    def encode(self, elements: Any) -> RecordBatch:
        raise NotImplementedError


def misfit(text: str, records: Sequence[bytes]) -> tuple[int, str] | None:
    """Return the first record that a codec does not read, and why; None: it reads all.

    Args:
        text: The codec; it takes nothing from the first record.
        records: Some records, the longest first.

    Raises:
        ArsrcError: It needs an extra that is not installed.
    """
    if not records:
        return None
    try:
        _codec(text, len(records[0]).bit_length()).decode(RecordBatch.from_records(records))
    except RecordError as error:
        return error.row, error.what
    return None


@functools.lru_cache(64)
def _codec(text: str, num_bits: int) -> Codec:
    """Return what reads records of less than `2**num_bits` bytes as a codec does."""
    codec = eval(text, {"__builtins__": {}, **vars(arsrc.codecs)})
    name = next((field.name for field in dataclasses.fields(codec) if field.name in ("fields", "features")), "")
    if not name:
        return _quick(codec, num_bits)
    specs = tuple((key, _quick(spec, num_bits)) for key, spec, *_ in getattr(codec, name))
    return dataclasses.replace(codec, **{name: specs})


def _quick(codec: Any, num_bits: int) -> Any:
    """Return a codec that reads what another reads; what needs no room for longer records than there are."""
    if isinstance(codec, Image):
        return _Heads(codec)
    if isinstance(codec, Ragged):  # of a record of so many bytes, none is of more items
        return dataclasses.replace(codec, max_length=min(codec.max_length, 1 << num_bits))
    return codec
