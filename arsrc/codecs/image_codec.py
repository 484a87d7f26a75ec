"""`Image`: JPEG, PNG, WebP, GIF and BMP as arrays of one size."""

import dataclasses
import os
import types
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_spec, cast_batch, whole_number
from arsrc.codecs.extra import not_installed
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.frozen import Terse
from arsrc.record_batch import RecordBatch

_FITS = ("resize", "crop", "pad", "exact")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_STEPS = 1  # raised whenever images are decoded to other pixels


@dataclasses.dataclass(frozen=True, repr=False)
class Image(Terse):
    """Images as `dtype[*shape]`: JPEG, PNG, WebP, GIF (its first frame) and BMP, told by their first bytes.

    Needs the extra `formats`. JPEGs are decoded by simplejpeg, scaled by libjpeg to the smallest of its sizes
    (eighths of each side) that is large enough; all others by Pillow. Colours become grey and alpha is added as
    Pillow's `convert` does; alpha is dropped where it is not wanted, nothing is put behind it. Then sizes are fitted,
    by bilinear scaling that averages where it shrinks. Colour of 16 bits a channel is read as the upper 8. A batch is
    decoded on several threads, images of more than 2**24 pixels by one of them alone, which takes up to 1 GB for one; a
    broken image, or one of more than 2**27 pixels, is an error of its record.

    Attributes:
        shape: `(height, width, channels)` of an element, with 1 channel for grey, 3 for RGB, 4 for RGBA; or
            `(height, width)`, grey.
        fit: "resize" scales to the size, whatever the proportions; "crop" scales until the size is covered, and keeps
            the middle; "pad" scales until the image fits, with zeros around it; "exact" refuses other sizes.
        dtype: "uint8", or "uint16" for grey images of 16 bits, such as depth maps; others are an error then, as these
            are with "uint8".
        orient: Whether images are turned, or mirrored, as their EXIF says.
        format: What `encode` writes: "jpeg", or "png", which loses nothing.
        quality: Of JPEGs that `encode` writes, in `[1, 100]`.

    Raises:
        ArsrcTypeError: `shape` is none, `dtype` is no dtype, or `quality` no integer (at construction).
        ArsrcValueError: There is no image of such a shape and dtype, or `fit`, `format` or `quality` is none of those
            that there are; or simplejpeg or Pillow is not installed (at construction).
    """

    shape: tuple[int, ...]
    fit: Literal["resize", "crop", "pad", "exact"] = "resize"
    _: dataclasses.KW_ONLY
    dtype: Any = "uint8"
    orient: bool = False
    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)):
            raise ArsrcTypeError("Image.shape", "must be (height, width, channels)", shape=self.shape)
        dtype, shape = array_spec("Image", (self.dtype, tuple(self.shape)))
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _MODES) or not all(shape):
            fix = "Give (height, width, channels) with 1, 3 or 4 channels, or (height, width)."
            raise ArsrcValueError("Image.shape", "is no shape of images", fix, shape=shape)
        if dtype not in (np.uint8, np.uint16) or (dtype == np.uint16 and shape[2:] not in ((), (1,))):
            fix = 'Use "uint8", or "uint16" with one channel; cast batches in the step.'
            raise ArsrcValueError("Image.dtype", "is no dtype of such images", fix, dtype=dtype.name, shape=shape)
        for name, value, allowed in (("fit", self.fit, _FITS), ("format", self.format, ("jpeg", "png"))):
            if value not in allowed:
                raise ArsrcValueError(f"Image.{name}", f"must be one of {', '.join(allowed)}", **{name: value})
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "orient", bool(self.orient))
        object.__setattr__(self, "quality", whole_number("Image.quality", "quality", self.quality, 1, 100))
        _batches()

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs: not what encodes them."""
        return self.shape, self.fit, self.dtype.name, self.orient, _STEPS, _batches().DECODERS

    def resolve(self, first_record: bytes) -> "Image":
        """Decode the first record; host only.

        Raises:
            RecordError: As `decode`.
        """
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> jax.ShapeDtypeStruct:
        """Spec of one element: `dtype[*shape]`."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def decode(self, records: RecordBatch) -> NDArray[Any]:
        """Return `dtype[num_records, *shape]`. Host only.

        Raises:
            RecordError: A record holds no image, one that is broken or cut off, or one that `fit` or `dtype` refuses.
        """
        batches = _batches()
        out = np.empty((len(records), *self.shape), self.dtype)
        mode = "I;16" if self.dtype == np.uint16 else _MODES[self._channels()]
        batches.decode(records, out.reshape(len(out), *self._rows_shape()), mode, self.fit, self.orient)
        return out

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode `dtype[num_records, *shape]` in `format`. Host only.

        Raises:
            ArsrcTypeError: The dtype is of another kind.
            ArsrcValueError: The shape differs, a value does not fit, or a JPEG cannot hold alpha or 16 bits.
        """
        if self.format == "jpeg" and (self.dtype != np.uint8 or self._channels() == 4):
            what = "a JPEG holds no alpha, and 8 bits a channel"
            raise ArsrcValueError("Image.encode", what, 'Write PNGs: format="png".', dtype=self.dtype.name)
        first = next(iter(elements), None) if isinstance(elements, (list, tuple)) else elements
        if isinstance(first, (str, bytes, os.PathLike)) or getattr(first, "dtype", self.dtype).kind in "OSU":
            fix = "Give the pixels; write files as they are as bytes: [Path(path).read_bytes(), ...]."
            raise ArsrcTypeError("Image.encode", "takes pixels, no paths and no bytes of files", fix)
        pixels = np.ascontiguousarray(cast_batch("Image.encode", elements, self.dtype, self.shape))
        quality = self.quality if self.format == "jpeg" else None
        records: RecordBatch = _batches().encode(pixels.reshape(len(pixels), *self._rows_shape()), quality)
        return records

    def _rows_shape(self) -> tuple[int, int, int]:
        return self.shape[0], self.shape[1], self._channels()

    def _channels(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else 1


def _batches() -> types.ModuleType:
    """Return what decodes batches, which needs packages that not everybody installs."""
    try:
        from arsrc._host.images import batches
    except ImportError as error:
        raise not_installed("Image", f"needs simplejpeg and Pillow ({error})") from error
    return batches
