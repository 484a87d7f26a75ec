"""PNG, WebP, GIF and BMP: decoded by Pillow, without what it does not need for the pixels of the first frame."""

import io
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, PngImagePlugin, WebPImagePlugin

from arsrc._host.images.bad_image import BadImage, LargeImage
from arsrc._host.images.fitting import Size, Wanted, put, turned
from arsrc._host.images.orientation import orientation
from arsrc.errors import said

_PNG = b"\x89PNG\r\n\x1a\n"
_OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}


def decode(data: bytes, wanted: Wanted, row: NDArray[Any]) -> None:
    """Write an image into a row [height, width, channels].

    Raises:
        BadImage: It is none of these formats, is broken, or not as it must be.
        LargeImage: It is not to be read now.
    """
    name, read = _format(data)
    try:
        picture = read(data, wanted)
        wanted.check(picture.size[::-1])
        picture.load()
        turn = orientation(picture.info.get("exif", b"")) if wanted.orient else 1
        picture = _converted(picture, wanted.mode)
    except (BadImage, LargeImage, MemoryError):
        raise
    except Exception as error:  # Pillow has many kinds
        raise BadImage(f"the {name} is broken: {said(error)}") from error
    put(picture, turned(picture.size[::-1], turn), turn, wanted, row)


def encode(pixels: NDArray[Any]) -> bytes:
    """Return u8[height, width, 1, 3 or 4] or u16[height, width, 1] as a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def _format(data: bytes) -> tuple[str, Callable[[bytes, Wanted], Image.Image]]:
    """Return the name of a format, and what begins to read it."""
    if data.startswith(_PNG):
        return "PNG", _png
    if data.startswith(b"GIF8"):
        return "GIF", _gif
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", _webp
    if data.startswith(b"BM"):
        return "BMP", lambda data, _: BmpImagePlugin.BmpImageFile(io.BytesIO(data))
    what = f"the record is no JPEG, PNG, WebP, GIF or BMP: it begins with {data[:8]!r}"
    raise BadImage(what, "Read other formats by a function of your own, with Map.")


def _png(data: bytes, _: Wanted) -> Image.Image:
    """Read a PNG without chunks that say other things, which may be large, or make Pillow warn."""
    chunks, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in _OF_PIXELS:
            chunks.append(data[at:end])
        at = end
    return PngImagePlugin.PngImageFile(io.BytesIO(b"".join(chunks)))


def _gif(data: bytes, wanted: Wanted) -> Image.Image:
    """Read a GIF whose first frame, which may be larger than the screen, is of a size that memory is taken for."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10:11] >= b"\x80" else 0)
    while data[at : at + 1] == b"!":  # an extension, in blocks
        at += 2
        while num_bytes := _little(data, at, 1):
            at += num_bytes + 1
        at += 1
    height = max(_little(data, 8), _little(data, at + 3) + _little(data, at + 7))
    width = max(_little(data, 6), _little(data, at + 1) + _little(data, at + 5))
    wanted.check((height, width))
    return GifImagePlugin.GifImageFile(io.BytesIO(data))


def _webp(data: bytes, wanted: Wanted) -> Image.Image:
    """Read a WebP of a size that memory is taken for, since Pillow takes it before it tells the size."""
    wanted.check(_webp_size(data))
    return WebPImagePlugin.WebPImageFile(io.BytesIO(data))


def _webp_size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data, 27, 3) + 1, _little(data, 24, 3) + 1
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return _little(data, 28) & 0x3FFF, _little(data, 26) & 0x3FFF


def _little(data: bytes, at: int, num_bytes: int = 2) -> int:
    return int.from_bytes(data[at : at + num_bytes], "little")


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """Return a picture in a mode, as Pillow converts it, but for 16 bits, which are kept or refused."""
    if picture.mode == mode:
        return picture
    if picture.mode.startswith("I"):
        raise BadImage("the image has 16 bits a channel, not 8", 'Read it with shape=(height, width), dtype="uint16".')
    if mode == "I;16":
        what = f"the image is none of grey with 16 bits, but of Pillow's mode {picture.mode}"
        raise BadImage(what, 'Read it with dtype="uint8".')
    if mode != "RGBA":  # dropped, and Pillow does not warn of it
        picture.info.pop("transparency", None)
    return picture.convert(mode)
