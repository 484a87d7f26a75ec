"""Whole batches of images: decoded into the rows of one array, and encoded."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import PIL
import simplejpeg
from numpy.typing import NDArray

from arsrc._host.images import jpeg, others
from arsrc._host.images.bad_image import BadImage, LargeImage
from arsrc._host.images.fitting import SMALL_PIXELS, Wanted
from arsrc._host.machine.sharing import on_rows
from arsrc.errors import RecordError
from arsrc.record_batch import RecordBatch

DECODERS = f"simplejpeg {simplejpeg.__version__}", f"Pillow {PIL.__version__}"
"""What decodes, with versions: other ones may give other pixels."""


def decode(records: RecordBatch, out: NDArray[Any], mode: str, fit: str, orient: bool) -> None:
    """Decode images into `out`, [num_records, height, width, channels].

    Raises:
        RecordError: A record holds no image, one that is broken, or one that is not as it must be.
    """
    wanted = Wanted((out.shape[1], out.shape[2]), mode, fit, orient)
    small = dataclasses.replace(wanted, most_pixels=SMALL_PIXELS)
    large: list[int] = []

    def work(row: int) -> None:
        try:
            _decode(records, row, small, out)
        except LargeImage:
            large.append(row)

    try:
        on_rows(work, len(records))
    except RecordError as error:  # that of the first row counts
        _decode_large(records, [row for row in large if row < error.row], wanted, out)
        raise
    _decode_large(records, large, wanted, out)


def _decode_large(records: RecordBatch, rows: Iterable[int], wanted: Wanted, out: NDArray[Any]) -> None:
    """Decode one after the other what a few bytes, in each of many records, can claim to be."""
    for row in sorted(rows):
        _decode(records, row, wanted, out)


def _decode(records: RecordBatch, row: int, wanted: Wanted, out: NDArray[Any]) -> None:
    data = records[row]
    decoder = jpeg if data.startswith(jpeg.MAGIC) else others
    try:
        decoder.decode(data, wanted, out[row])
    except BadImage as error:
        raise RecordError(row, error.what, error.fix) from error


def encode(pixels: NDArray[Any], quality: int | None) -> RecordBatch:
    """Encode [n, height, width, channels] as JPEGs of a quality; None: as PNGs."""
    found = [b""] * len(pixels)

    def work(row: int) -> None:
        found[row] = others.encode(pixels[row]) if quality is None else jpeg.encode(pixels[row], quality)

    on_rows(work, len(pixels))
    return RecordBatch.from_records(found)
