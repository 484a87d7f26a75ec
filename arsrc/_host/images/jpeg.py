"""JPEG: decoded by libjpeg-turbo, scaled while decoding where it stays large enough."""

from typing import Any

import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from arsrc._host.images.bad_image import BadImage
from arsrc._host.images.fitting import Size, Wanted, check_size, put, turned
from arsrc._host.images.orientation import exif_of_jpeg, orientation
from arsrc.errors import said

MAGIC = b"\xff\xd8\xff"

_COLORS = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGBA"}
# Modes whose memory Pillow takes as it is: for RGB, four bytes a pixel.
_MAPPED = {"L": ("GRAY", "L"), "RGB": ("RGBX", "RGBX"), "RGBA": ("RGBA", "RGBA")}


def decode(data: bytes, wanted: Wanted, row: NDArray[Any]) -> None:
    """Write a JPEG into a row [height, width, channels].

    Raises:
        BadImage: It is broken, cut off, or not as it must be.
    """
    if wanted.mode not in _COLORS:
        raise BadImage("the image has 8 bits a channel, not 16", 'Read it with dtype="uint8".')
    stored = _size(data)
    check_size(stored)
    turn = orientation(exif_of_jpeg(data)) if wanted.orient else 1
    size = turned(stored, turn)
    least = turned(wanted.scaled(size), turn)
    try:
        if turn == 1 and _size(data, least) == wanted.size == least:
            _pixels(data, _COLORS[wanted.mode], least, row)
            return
        color, mode = _MAPPED[wanted.mode]
        pixels = _pixels(data, color, least)
    except ValueError as error:
        raise BadImage(f"the JPEG is broken: {said(error)}") from error
    picture = Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", mode, 0, 1)
    put(picture, size, turn, wanted, row)


def encode(pixels: NDArray[Any], quality: int) -> bytes:
    """Return u8[height, width, 1 or 3] as a JPEG; colours are not subsampled."""
    return bytes(simplejpeg.encode_jpeg(pixels, quality, "GRAY" if pixels.shape[-1] == 1 else "RGB", "444"))


def _size(data: bytes, least: Size = (0, 0)) -> Size:
    """Return the size that a JPEG has when it was scaled, to `least` or more."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, *least)
    except ValueError as error:
        raise BadImage(f"the JPEG is broken: {said(error)}") from error
    except KeyError as error:
        raise BadImage("the JPEG has colours that are subsampled in a way that simplejpeg does not know") from error
    return int(height), int(width)


def _pixels(data: bytes, color: str, least: Size, out: NDArray[Any] | None = None) -> NDArray[Any]:
    pixels: NDArray[Any] = simplejpeg.decode_jpeg(data, color, min_height=least[0], min_width=least[1], buffer=out)
    return pixels
