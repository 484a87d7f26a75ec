"""JPEG: decoded by libjpeg-turbo, scaled while decoding where it stays large enough."""

from typing import Any

import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from arsrc._host.images.bad_image import BadImage
from arsrc._host.images.fitting import Size, Wanted, put, turned
from arsrc._host.images.orientation import exif_of_jpeg, orientation
from arsrc.errors import said

MAGIC = b"\xff\xd8\xff"

_COLORS = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGBA"}


def decode(data: bytes, wanted: Wanted, row: NDArray[Any]) -> None:
    """Write a JPEG into a row [height, width, channels].

    Raises:
        BadImage: It is broken, cut off, or not as it must be.
        LargeImage: It is not to be read now.
    """
    if wanted.mode not in _COLORS:
        raise BadImage("the image has 8 bits a channel, not 16", 'Read it with dtype="uint8".')
    stored, is_cmyk = _header(data)
    wanted.check(stored)
    turn = orientation(exif_of_jpeg(data)) if wanted.orient else 1
    size = turned(stored, turn)
    height, width = turned(wanted.scaled(size), turn)
    color = "CMYK" if is_cmyk else _COLORS[wanted.mode]
    try:
        if (height, width) == wanted.size and turn == 1 and not is_cmyk and _scales_to(stored, wanted.size):
            simplejpeg.decode_jpeg(data, color, min_height=height, min_width=width, buffer=row)
            return
        pixels = simplejpeg.decode_jpeg(data, color, min_height=height, min_width=width)
    except ValueError as error:
        raise BadImage(f"the JPEG is broken: {said(error)}") from error
    mode, raw = ("CMYK", "CMYK;I") if is_cmyk else (wanted.mode, wanted.mode)  # all files hold CMYK inverted
    picture = Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", raw, 0, 1)
    put(picture.convert(wanted.mode) if is_cmyk else picture, size, turn, wanted, row)


def _scales_to(stored: Size, size: Size) -> bool:
    """Whether libjpeg scales a picture to just this size, which simplejpeg then chooses as the least."""
    return any(size == tuple(-(-side * eighths // 8) for side in stored) for eighths in range(8, 0, -1))


def encode(pixels: NDArray[Any], quality: int) -> bytes:
    """Return u8[height, width, 1 or 3] as a JPEG; colours are not subsampled."""
    return bytes(simplejpeg.encode_jpeg(pixels, quality, "GRAY" if pixels.shape[-1] == 1 else "RGB", "444"))


def _header(data: bytes) -> tuple[Size, bool]:
    """Return the size of a JPEG, and whether its colours are CMYK."""
    try:
        height, width, color, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadImage(f"the JPEG is broken: {said(error)}") from error
    except KeyError as error:
        raise BadImage("the JPEG has colours that are subsampled in a way that simplejpeg does not know") from error
    return (int(height), int(width)), color in ("CMYK", "YCCK")
