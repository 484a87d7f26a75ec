"""Pictures of any size to rows of one: scaled, cropped, padded or refused, and turned as their EXIF says."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from arsrc._host.images.bad_image import BadImage, LargeImage

Size = tuple[int, int]
"""Height and width."""

MOST_PIXELS = 2**27
"""Of a picture, which few bytes can claim to hold: half a GiB, and as much where it is converted."""
SMALL_PIXELS = 2**24
"""Of pictures that several threads decode at a time: an eighth of that for each."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What every picture becomes.

    Attributes:
        size: Height and width.
        mode: Pillow's name of the pixels: "L", "RGB", "RGBA" or "I;16".
        fit: "resize", "crop", "pad" or "exact".
        orient: Whether pictures are turned as their EXIF says.
        most_pixels: Most pixels of a picture for which memory is taken now.
    """

    size: Size
    mode: str
    fit: str
    orient: bool
    most_pixels: int = MOST_PIXELS

    def check(self, size: Size) -> None:
        """Look at the size of a picture before memory is taken for it.

        Raises:
            BadImage: It is never taken for one of this size.
            LargeImage: It is not taken now.
        """
        num_pixels = size[0] * size[1]
        if min(size) < 1 or num_pixels > MOST_PIXELS:
            what = f"the image says that it has {size[0]} x {size[1]} pixels"
            raise BadImage(what, f"Images of 1 to {MOST_PIXELS} pixels are read.")
        if num_pixels > self.most_pixels:
            raise LargeImage

    def scaled(self, size: Size) -> Size:
        """Return the size that a whole picture of `size` is scaled to; for "crop", that its middle is scaled to.

        Raises:
            BadImage: It has another size than it must have.
        """
        if self.fit == "exact" and size != self.size:
            what = f"the image has {size[0]} x {size[1]} pixels (height x width), not {self.size[0]} x {self.size[1]}"
            raise BadImage(what, 'Let it be scaled, by fit="resize", "crop" or "pad".')
        if self.fit != "pad":
            return self.size
        height, width = self.size
        if height * size[1] <= width * size[0]:
            return height, max(1, (2 * size[1] * height + size[0]) // (2 * size[0]))  # rounded
        return max(1, (2 * size[0] * width + size[1]) // (2 * size[1])), width


def turned(size: Size, orientation: int) -> Size:
    """Return the size that a picture has when it has been turned."""
    return size[::-1] if orientation > 4 else size


def put(picture: Image.Image, size: Size, orientation: int, wanted: Wanted, row: NDArray[Any]) -> None:
    """Write a picture into a row.

    Args:
        picture: Of the wanted mode; may have been scaled when it was decoded.
        size: That of the whole picture, turned.
        orientation: EXIF's number of how to turn it, 1 for not at all.
        wanted: What it becomes.
        row: [height, width, channels]
    """
    if orientation != 1:
        picture = picture.transpose(_TURNS[orientation])
    height, width = wanted.scaled(size)
    box = _middle(picture.size, (width, height)) if wanted.fit == "crop" else (0.0, 0.0, *picture.size)
    if picture.size != (width, height) or box != (0, 0, width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    if (height, width) != wanted.size:
        row.fill(0)
    top, left = (wanted.size[0] - height) // 2, (wanted.size[1] - width) // 2
    target = row[top : top + height, left : left + width]
    pixels = picture.tobytes()
    target[...] = np.frombuffer(pixels, "<u2" if wanted.mode == "I;16" else "u1").reshape(target.shape)


def _middle(size: Size, wanted: Size) -> tuple[float, float, float, float]:
    """Return the largest box of the wanted proportions around the middle; sizes are width and height."""
    (width, height), (across, down) = size, wanted
    if width * down > across * height:
        kept, twice = across * height, 2 * down
        return (width * down - kept) / twice, 0.0, (width * down + kept) / twice, float(height)
    kept, twice = down * width, 2 * across
    return 0.0, (height * across - kept) / twice, float(width), (height * across + kept) / twice
