"""`Image`: against Pillow's own way to the same pixels, for formats, modes, fits, turns, broken files and threads."""

import contextlib
import dataclasses
import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.images import fitting
from arsrc._host.machine import sharing
from arsrc._host.machine.stopping import Stopped
from arsrc._host.records.codec_identity import describe
from arsrc._host.records.own_memory import OwnMemory
from arsrc._host.records.stoppable import Stoppable
from arsrc.codecs import Image, RecordBatch
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

BILINEAR = PIL.Image.Resampling.BILINEAR
FITS = ["resize", "crop", "pad"]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LOSSLESS = [("PNG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {"lossless": True})]


def batch_of(*records: bytes) -> RecordBatch:
    return RecordBatch.from_records(records)


def decode_one(codec: Image, record: bytes) -> np.ndarray:
    return codec.decode(batch_of(record))[0]


def photo(height: int, width: int, seed: int = 0, mode: str = "RGB") -> PIL.Image.Image:
    """A picture with soft and sharp parts, so that scaling and JPEG have something to do."""
    rng = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (5, 6, 4), np.uint8), "RGBA").resize((width, height), BILINEAR)
    pixels = np.array(coarse)
    pixels[height // 3 : height // 2 + 1, width // 4 :] = rng.integers(0, 256, 4)
    return PIL.Image.fromarray(pixels, "RGBA").convert(mode)


def file_of(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> PIL.Image.Exif:
    found = PIL.Image.Exif()
    found[0x0112] = orientation
    return found


def scaled(picture: PIL.Image.Image, size: tuple[int, int], box: Any = None) -> PIL.Image.Image:
    return picture.resize(size[::-1], BILINEAR, box)


def within(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The size that an image has when it just fits into `shape`."""
    scale = min(Fraction(shape[0], size[0]), Fraction(shape[1], size[1]))
    height, width = (max(1, int(side * scale + Fraction(1, 2))) for side in size)
    return height, width


def fitted(picture: PIL.Image.Image, shape: tuple[int, int], fit: str, whole: Any = None) -> np.ndarray:
    """The fits as their definitions say, in exact arithmetic; `whole` is the size before JPEG's own scaling."""
    if fit == "pad":
        inner = within(whole or picture.size[::-1], shape)
        out = np.zeros((*shape, *np.asarray(picture).shape[2:]), np.asarray(picture).dtype)
        top, left = (shape[0] - inner[0]) // 2, (shape[1] - inner[1]) // 2
        out[top : top + inner[0], left : left + inner[1]] = np.asarray(scaled(picture, inner))
        return out
    box = None
    if fit == "crop":
        across, down = picture.size
        scale = min(Fraction(across, shape[1]), Fraction(down, shape[0]))
        rest = (across - shape[1] * scale) / 2, (down - shape[0] * scale) / 2
        box = tuple(map(float, (*rest, across - rest[0], down - rest[1])))
    return np.asarray(scaled(picture, shape, box))


# Formats and modes.


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("kind", "options"), LOSSLESS, ids=[name for name, _ in LOSSLESS])
def test_a_lossless_image_has_the_pixels_that_pillow_gives_and_converts(
    kind: str, options: Any, mode: str, channels: int
) -> None:
    if kind == "BMP" and mode == "LA":
        pytest.skip("BMP has no such mode")
    record = file_of(photo(23, 31, mode=mode), kind, **options)
    with PIL.Image.open(io.BytesIO(record)) as picture:
        picture.load()
        if channels < 4:
            picture.info.pop("transparency", None)
        expected = np.asarray(picture.convert(MODES[channels])).reshape(23, 31, channels)
    assert np.array_equal(decode_one(Image((23, 31, channels), "exact"), record), expected)


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
@pytest.mark.parametrize("channels", MODES)
def test_a_palette_with_transparency_warns_of_nothing(transparency: Any, channels: int) -> None:
    record = file_of(photo(9, 8, mode="P"), "PNG", transparency=transparency)
    found = decode_one(Image((9, 8, channels), "exact"), record)
    with PIL.Image.open(io.BytesIO(record)) as picture:
        rgba = np.asarray(picture.convert("RGBA"))
    if channels == 4:
        assert np.array_equal(found, rgba)
    elif channels == 3:
        assert np.array_equal(found, rgba[..., :3])


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_has_the_pixels_that_simplejpeg_gives_close_to_those_of_pillow(
    mode: str, progressive: bool, channels: int
) -> None:
    record = file_of(photo(45, 37, mode=mode), "JPEG", quality=90, progressive=progressive)
    found = decode_one(Image((45, 37, channels), "exact"), record)
    with PIL.Image.open(io.BytesIO(record)) as picture:
        expected = np.asarray(picture.convert(MODES[channels])).reshape(found.shape)
    if mode == "CMYK":
        assert np.array_equal(found, expected)
        return
    assert np.array_equal(found, simplejpeg.decode_jpeg(record, {1: "GRAY", 3: "RGB", 4: "RGBA"}[channels]))
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 1
    if channels > 1 or mode != "RGB":  # grey is the luma that the file holds, before colours are clipped
        assert difference.max() <= 2


def test_an_element_has_the_shape_that_is_written_with_or_without_an_axis_for_one_channel() -> None:
    record = file_of(photo(6, 7), "PNG")
    with_axis, without = decode_one(Image((6, 7, 1)), record), decode_one(Image((6, 7)), record)
    assert (with_axis.shape, without.shape) == ((6, 7, 1), (6, 7))
    assert np.array_equal(with_axis[..., 0], without)
    assert Image((6, 7)).element_spec() == jax.ShapeDtypeStruct((6, 7), np.uint8)


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [photo(12, 13, seed) for seed in range(3)]
    for kind in ("PNG", "GIF", "WEBP"):
        alone = {"lossless": True} if kind == "WEBP" else {}
        record = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **alone)
        with PIL.Image.open(io.BytesIO(record)) as picture:
            assert picture.n_frames == 3
            expected = np.asarray(picture.convert("RGB"))
        assert np.array_equal(decode_one(Image((12, 13, 3), "exact"), record), expected)


@pytest.mark.parametrize("fit", [*FITS, "exact"])
def test_grey_of_16_bits_keeps_them(fit: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (20, 30), np.uint16)
    shape = (20, 30) if fit == "exact" else (13, 11)
    found = decode_one(Image(shape, fit, dtype="uint16"), file_of(PIL.Image.fromarray(pixels), "PNG"))
    assert found.dtype == np.uint16
    expected = pixels if fit == "exact" else fitted(PIL.Image.fromarray(pixels), shape, fit)
    assert np.array_equal(found, expected)


def test_colour_of_16_bits_is_read_as_its_upper_8() -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 5, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    record = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [
            (b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
    )
    assert np.array_equal(decode_one(Image((4, 5, 3)), record), pixels >> 8)


# Fits.


@pytest.mark.parametrize("fit", FITS)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    channels=st.sampled_from(list(MODES)),
)
def test_a_fit_is_what_its_definition_says(fit: str, size: Any, shape: Any, channels: int) -> None:
    picture = photo(*size, mode=MODES[channels])
    found = decode_one(Image((*shape, channels), fit), file_of(picture, "PNG"))
    assert np.array_equal(found, fitted(picture, shape, fit).reshape(found.shape))


@pytest.mark.parametrize("fit", FITS)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    channels=st.sampled_from(list(MODES)),
)
def test_a_jpeg_is_scaled_by_libjpeg_while_it_stays_large_enough_and_then_fitted(
    fit: str, size: Any, shape: Any, channels: int
) -> None:
    record = file_of(photo(*size), "JPEG")
    inner = within(size, shape) if fit == "pad" else shape
    color = {1: "GRAY", 3: "RGB", 4: "RGBA"}[channels]
    pixels = simplejpeg.decode_jpeg(record, color, min_height=inner[0], min_width=inner[1])
    assert all(found >= min(least, whole) for found, least, whole in zip(pixels.shape, inner, size, strict=False))
    picture = PIL.Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    found = decode_one(Image((*shape, channels), fit), record)
    assert np.array_equal(found, fitted(picture, shape, fit, size).reshape(found.shape))


@pytest.mark.parametrize("fit", FITS)
def test_a_scaled_jpeg_is_close_to_what_pillow_makes_of_the_whole_one(fit: str) -> None:
    picture = photo(400, 300)
    found = decode_one(Image((96, 80, 3), fit), file_of(picture, "JPEG", quality=95))
    assert np.abs(found.astype(int) - fitted(picture, (96, 80), fit)).mean() < 2


def test_what_was_in_the_memory_does_not_show_in_the_padding() -> None:
    out = np.full((1, 9, 20, 3), 7, np.uint8)
    picture = PIL.Image.new("RGB", (5, 9), (1, 2, 3))
    fitting.put(picture, (9, 5), 1, fitting.Wanted((9, 20), "RGB", "pad", False), out[0])
    assert np.unique(out[0, :, 7:12].reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]
    assert not out[0, :, :7].any()
    assert not out[0, :, 12:].any()


def test_another_size_is_refused_where_it_must_be_exact_and_both_are_said() -> None:
    for kind in ("PNG", "JPEG"):
        with pytest.raises(RecordError, match=r"the image has 8 x 9 pixels \(height x width\), not 9 x 8.*fit="):
            decode_one(Image((9, 8, 3), "exact"), file_of(photo(8, 9), kind))


# Turns.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_as_its_exif_says_if_that_is_asked_for(kind: str, fit: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    record, plain = (file_of(photo(90, 130), kind, **extra, **options) for extra in ({"exif": exif(orientation)}, {}))
    as_stored = Image((30, 40, 3), fit)
    assert np.array_equal(decode_one(as_stored, record), decode_one(as_stored, plain))
    with PIL.Image.open(io.BytesIO(record)) as opened:
        picture = PIL.ImageOps.exif_transpose(opened).convert("RGB")
    size = picture.size[::-1]
    if kind == "JPEG":  # which is scaled while it is decoded, and then turned
        least = within(size, (30, 40)) if fit == "pad" else (30, 40)
        least = least[::-1] if orientation > 4 else least
        picture = PIL.Image.fromarray(simplejpeg.decode_jpeg(record, min_height=least[0], min_width=least[1]))
        picture.getexif()[0x0112] = orientation
        picture = PIL.ImageOps.exif_transpose(picture)
    found = decode_one(dataclasses.replace(as_stored, orient=True), record)
    assert np.array_equal(found, fitted(picture, (30, 40), fit, size))


def test_an_image_that_is_turned_must_have_the_size_that_it_then_has() -> None:
    record = file_of(photo(6, 8), "JPEG", exif=exif(6))
    assert decode_one(Image((8, 6, 3), "exact", orient=True), record).shape == (8, 6, 3)
    with pytest.raises(RecordError, match="the image has 8 x 6 pixels"):
        decode_one(Image((6, 8, 3), "exact", orient=True), record)


@given(damage=st.binary(max_size=60), at=st.integers(0, 60), order=st.sampled_from(["<", ">"]))
def test_damaged_exif_turns_nothing_or_as_it_says(damage: bytes, at: int, order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = mark + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
    body = body[:at] + damage
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body
    plain = file_of(photo(8, 8), "JPEG")
    record = plain[:2] + segment + plain[2:]
    found = decode_one(Image((8, 8, 3), "exact", orient=True), record)
    upright = decode_one(Image((8, 8, 3), "exact"), plain)
    assert any(np.array_equal(found, turn) for turn in _all_turns(upright))


def _all_turns(pixels: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(side, k) for side in (pixels, pixels[:, ::-1]) for k in range(4)]


# Broken ones.


BROKEN = [
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("GIF", "RGB", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), BROKEN, ids=[f"{f}-{m}-{len(o)}" for f, m, o in BROKEN])
@pytest.mark.parametrize("fit", ["exact", "resize"])
def test_an_image_that_is_cut_off_is_an_error_or_has_all_its_pixels(kind: str, mode: str, options: Any, fit: str):
    record = file_of(photo(36, 33, mode=mode), kind, **options)
    codec = Image((36, 33, 3) if fit == "exact" else (9, 7, 3), fit)
    whole = decode_one(codec, record)
    num_errors = 0
    for length in [*range(0, len(record), 7), *range(len(record) - 20, len(record))]:
        try:
            found = decode_one(codec, record[:length])
        except RecordError:
            num_errors += 1
        else:
            assert np.array_equal(found, whole), length
    assert num_errors > len(record) // 7 * 0.9


@given(data=st.data(), case=st.sampled_from(BROKEN))
def test_damaged_bytes_are_an_error_of_the_record_or_an_image(data: Any, case: Any) -> None:
    kind, mode, options = case
    record = bytearray(file_of(photo(16, 15, mode=mode), kind, **options))
    for at in data.draw(st.lists(st.integers(0, len(record) - 1), min_size=1, max_size=4)):
        record[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RecordError):
        assert decode_one(Image((8, 8, 3)), bytes(record)).shape == (8, 8, 3)


def big(kind: str) -> bytes:
    """A small file that says that it is huge."""
    if kind == "GIF frame":  # which is larger than the screen
        record = bytearray(file_of(photo(4, 4, mode="L"), "GIF"))
        at = record.index(b",\0\0\0\0\4\0\4\0")
        record[at + 5 : at + 9] = b"\xff\xff\xff\xff"
        return bytes(record)
    record = bytearray(file_of(photo(4, 4), kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "PNG":
        record[16:24] = struct.pack(">II", 60_000, 60_000)
        record[29:33] = struct.pack(">I", zlib.crc32(record[12:29]))
    if kind == "JPEG":
        at = record.index(b"\xff\xc0") + 5
        record[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    if kind == "GIF":
        record[6:10] = struct.pack("<HH", 60_000, 60_000)
    if kind == "BMP":
        record[18:26] = struct.pack("<ii", 60_000, 60_000)
    if kind == "WEBP":
        record[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    return bytes(record)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "GIF frame", "BMP", "WEBP"])
def test_a_small_file_that_says_that_it_is_huge_is_an_error_before_memory_is_taken(kind: str) -> None:
    with pytest.raises(RecordError, match=r"the image says that it has \d{5} x \d{5} pixels\. Images of 1 to"):
        decode_one(Image((4, 4, 3)), big(kind))


@pytest.mark.parametrize("header", [b"VP8X", b"VP8 "])
def test_the_size_of_every_kind_of_webp_is_seen_before(header: bytes) -> None:
    if header == b"VP8X":
        picture, size = photo(4, 4, mode="RGBA"), b"\xff\xff\xff\xff\xff\xff"
        record = bytearray(file_of(picture, "WEBP", exif=exif(1)))
        record[24:30] = size
    else:
        record = bytearray(file_of(photo(4, 4), "WEBP"))
        record[26:30] = b"\xff\x3f\xff\x3f"
    assert record[12:16] == header
    with pytest.raises(RecordError, match=r"the image says that it has \d+ x \d+ pixels\."):
        decode_one(Image((4, 4, 3)), bytes(record))


REFUSED_RECORDS = [
    (b"", {}, r"is no JPEG, PNG, WebP, GIF or BMP: it begins with b''\. .*Map"),
    (b"RIFF....WAVEfmt ", {}, "is no JPEG, PNG, WebP, GIF or BMP: it begins with b'RIFF"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", {}, "is no JPEG, PNG"),
    (b"\xff\xd8\xff", {}, "the JPEG is broken: ValueError: "),
    (b"\x89PNG\r\n\x1a\n", {}, "the PNG is broken: "),
    (b"GIF89a", {}, r"says that it has 0 x 0 pixels|the GIF is broken: "),
    (file_of(photo(4, 4), "JPEG"), {"dtype": "uint16", "shape": (4, 4)}, r"has 8 bits.*dtype=\"uint8\""),
    (file_of(photo(4, 4), "PNG"), {"dtype": "uint16", "shape": (4, 4)}, r"none of grey with 16.*RGB.*dtype=\"uint8\""),
    (file_of(PIL.Image.fromarray(np.ones((4, 4), np.uint16)), "PNG"), {}, r"has 16 bits.*dtype=\"uint16\""),
]


@pytest.mark.parametrize(("record", "fields", "text"), REFUSED_RECORDS)
def test_a_record_that_holds_no_such_image_says_what_it_is(record: bytes, fields: Any, text: str) -> None:
    codec = Image(**({"shape": (4, 4, 3)} | fields))
    with pytest.raises(RecordError, match=text) as caught:
        codec.decode(batch_of(codec_file(codec), record))
    assert caught.value.row == 1


def codec_file(codec: Image) -> bytes:
    """A record that a codec of 4 x 4 pixels takes."""
    return dataclasses.replace(codec, format="png").encode(np.zeros((1, *codec.shape), codec.dtype))[0]


def test_subsampling_that_simplejpeg_does_not_know_is_said_of_the_record() -> None:
    record = bytearray(file_of(photo(16, 16), "JPEG", subsampling=2))
    record[record.index(b"\xff\xc0") + 11] = 0x14
    with pytest.raises(RecordError, match=r"the JPEG (has colours that are subsampled|is broken)"):
        decode_one(Image((4, 4, 3)), bytes(record))


def test_texts_and_animations_that_pillow_warns_of_do_not_matter() -> None:
    plain = file_of(photo(5, 5), "PNG")
    body = struct.pack(">II", 0, 0)  # an animation of no frames
    chunk = struct.pack(">I", len(body)) + b"acTL" + body + struct.pack(">I", zlib.crc32(b"acTL" + body))
    text = b"a\0\0" + zlib.compress(bytes(2**24))
    chunk += struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    codec = Image((5, 5, 3), "exact")
    assert np.array_equal(decode_one(codec, plain[:33] + chunk + plain[33:]), decode_one(codec, plain))


# Batches.


def many(num_records: int = 40) -> list[bytes]:
    formats = [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("GIF", {})]
    return [
        file_of(photo(40 + i % 7, 50 - i % 5, i), kind, **options)
        for i, (kind, options) in enumerate(formats * (num_records // 4))
    ]


@pytest.mark.parametrize("fit", FITS)
def test_any_number_of_threads_gives_the_same_bits(fit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = many()
    codec = Image((32, 24, 3), fit)
    alone = np.stack([decode_one(codec, record) for record in records])
    for num_threads in (1, 2, 5):
        monkeypatch.setattr(sharing, "num_cores", lambda num_threads=num_threads: num_threads)
        assert np.array_equal(codec.decode(batch_of(*records)), alone)


def test_of_several_broken_images_the_first_is_named() -> None:
    records = many()
    for row in (17, 21, 33):
        records[row] = records[row][:200]
    for _ in range(5):
        with pytest.raises(RecordError) as caught:
            Image((32, 24, 3)).decode(batch_of(*records))
        assert caught.value.row == 17


def test_what_is_decoded_is_not_copied() -> None:
    codec, records, memory = Image((48, 48, 3)), batch_of(*many()), OwnMemory()
    for _ in range(20):
        made: list[int] = []

        def decode(made: list[int] = made) -> list[np.ndarray]:
            leaves = [codec.decode(records)]
            made.append(leaves[0].ctypes.data)
            return leaves

        leaves = memory.of(decode, records.data)
        assert leaves[0].ctypes.data == made[0]


def test_a_batch_that_nobody_wants_any_more_is_not_decoded_to_its_end() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10

    records = batch_of(*many())
    with pytest.raises(Stopped):
        Image((32, 24, 3)).decode(Stoppable(records.data, records.offsets, stop))
    assert asked < len(records)


def test_no_record_is_no_row() -> None:
    assert Image((4, 5, 3)).decode(RecordBatch.from_records([])).shape == (0, 4, 5, 3)


def test_files_of_images_are_read_in_a_scan(tmp_path: Path) -> None:
    codec = Image((16, 16, 3), "crop")
    records = many()
    arsrc.write_array_record(tmp_path / "images", records)
    config = arsrc.ArrayRecordSourceConfig(str(tmp_path / "images"), batch_size=8, codec=codec, shuffle_records=True)

    def body(carry: Any, batch: arsrc.Batch) -> Any:
        return carry, (batch.record_ids, batch.data)

    _, _, (ids, found) = jax.jit(lambda s: arsrc.scan_epoch(config, s, 0, body))(arsrc.init(config))
    assert np.array_equal(found.reshape(-1, 16, 16, 3), codec.decode(batch_of(*records))[ids.reshape(-1)])
    arsrc.close(config)


def test_a_broken_image_is_a_masked_row_where_that_is_asked_for(tmp_path: Path) -> None:
    records = many(8)
    records[3] = records[3][:100]
    arsrc.write_array_record(tmp_path / "images", records)
    config = arsrc.ArrayRecordSourceConfig(
        str(tmp_path / "images"), batch_size=8, codec=Image((16, 16)), on_bad_record="mask"
    )
    _, batch = arsrc.next_batch(config, arsrc.init(config))
    assert batch.mask.tolist() == [True] * 3 + [False] + [True] * 4
    assert "the GIF is broken" in arsrc.bad_records(config).reasons[0]
    arsrc.close(config)


# Encoding.


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([None, 1, 3, 4])),
    dtype=st.sampled_from(["uint8", "uint16"]),
    data=st.data(),
)
def test_png_gives_back_what_was_encoded(shape: Any, dtype: str, data: Any) -> None:
    shape = tuple(side for side in shape if side)
    if dtype == "uint16":
        shape = shape[:2]
    codec = Image(shape, "exact", dtype=dtype, format="png")
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    elements = rng.integers(0, np.iinfo(dtype).max, (3, *shape), dtype, endpoint=True)
    assert np.array_equal(codec.decode(codec.encode(elements)), elements)


@pytest.mark.parametrize("shape", [(24, 25), (24, 25, 1), (24, 25, 3)])
def test_jpegs_are_those_of_simplejpeg_with_the_given_quality(shape: tuple[int, ...]) -> None:
    elements = np.stack([np.asarray(photo(24, 25, i, MODES[[*shape, 1][2]])).reshape(shape) for i in range(3)])
    sizes = []
    for quality in (50, 95):
        codec = Image(shape, quality=quality)
        records = codec.encode(elements)
        colour = {1: "GRAY", 3: "RGB"}[[*shape, 1][2]]
        assert [records[row] for row in range(3)] == [
            simplejpeg.encode_jpeg(element.reshape(24, 25, -1), quality, colour, "444") for element in elements
        ]
        sizes.append(len(records.data))
    assert sizes[0] < sizes[1]
    assert np.abs(codec.decode(records).astype(int) - elements).mean() < 4


def test_jax_arrays_and_other_integers_that_fit_are_encoded() -> None:
    elements = np.stack([np.asarray(photo(8, 9))])
    codec = Image((8, 9, 3))
    plain = codec.encode(elements)[0]
    assert codec.encode(jax.numpy.asarray(elements))[0] == codec.encode(elements.astype(np.int64))[0] == plain
    assert len(codec.encode(elements[:0])) == 0


# The codec as a value.


REFUSED = [
    (lambda: Image(3), ArsrcTypeError, r"Image\.shape: must be \(height, width, channels\); got shape=3"),
    (lambda: Image((4,)), ArsrcValueError, r"Image\.shape: is no shape of images; got shape=\(4,\)\. Give"),
    (lambda: Image((4, 4, 2)), ArsrcValueError, r"Image\.shape: is no shape of images; got shape=\(4, 4, 2\)"),
    (lambda: Image((4, 0, 3)), ArsrcValueError, r"Image\.shape: is no shape of images; got shape=\(4, 0, 3\)"),
    (lambda: Image((4, 4.5)), ArsrcTypeError, "size must be an integer|is no array spec"),
    (lambda: Image((4, 4), dtype="float32"), ArsrcValueError, r"Image\.dtype: is no dtype of such.*'float32'"),
    (lambda: Image((4, 4, 3), dtype="uint16"), ArsrcValueError, r"Image\.dtype: .*'uint16'.*shape=\(4, 4, 3\)"),
    (lambda: Image((4, 4), dtype="nonsense"), ArsrcTypeError, "is no dtype"),
    (lambda: Image((4, 4), "stretch"), ArsrcValueError, r"Image\.fit: must be one of resize, .*got fit='stretch'"),
    (
        lambda: Image((4, 4), format="gif"),
        ArsrcValueError,
        r"Image\.format: must be one of jpeg, png; got format='gif'",
    ),
    (lambda: Image((4, 4), quality=0), ArsrcValueError, r"Image\.quality: must be in \[1, 100\]; got quality=0"),
    (lambda: Image((4, 4, 4)).encode(np.zeros((1, 4, 4, 4), "u1")), ArsrcValueError, r"no alpha.*format=\"png\""),
    (
        lambda: Image((4, 4), dtype="u2").encode(np.zeros((1, 4, 4), "u2")),
        ArsrcValueError,
        r"8 bits.*got dtype='uint16'",
    ),
    (lambda: Image((4, 4)).encode(np.zeros((1, 4, 5), "u1")), ArsrcValueError, r"Image\.encode: has another shape"),
    (lambda: Image((4, 4)).encode(np.full((1, 4, 4), 256)), ArsrcValueError, "does not fit uint8; got value=256"),
]


@pytest.mark.parametrize(("build", "error", "text"), REFUSED)
def test_what_cannot_be_used_is_refused_with_its_value(build: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        build()
    assert str(caught.value).startswith("[arsrc] ")


def test_the_codec_is_a_value() -> None:
    codec = Image([4, 5, 3], "pad", orient=True)
    assert codec == Image((4, 5, 3), "pad", orient=True, dtype=np.uint8)
    assert hash(codec) == hash(Image((4, 5, 3), "pad", orient=True))
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert repr(codec) == "Image(shape=(4, 5, 3), fit='pad', orient=True)"
    assert isinstance(codec, arsrc.codecs.Codec)


def test_elements_kept_in_files_are_those_of_what_decodes_and_not_of_what_encodes() -> None:
    codec = Image((4, 4))
    assert describe(codec) == describe(Image((4, 4), format="png", quality=10))
    others = [Image((4, 5)), Image((4, 4, 1)), Image((4, 4), "pad"), Image((4, 4), orient=True)]
    others.append(Image((4, 4), dtype="uint16"))
    assert len({describe(other) for other in (codec, *others)}) == 6
    assert {f"simplejpeg {simplejpeg.__version__}", f"Pillow {PIL.__version__}"} < {*str(codec.cache_key()).split("'")}


@pytest.mark.parametrize("missing", ["simplejpeg", "PIL"])
def test_without_its_packages_the_codec_says_what_to_install_when_it_is_made(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
from arsrc.codecs import Image
try:
    Image((4, 4))
except ValueError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    [line] = done.stdout.splitlines()
    assert line.startswith("[arsrc] Image: needs simplejpeg and Pillow (")
    assert line.endswith("). Run: pip install 'arsrc[formats]'.")


@pytest.mark.parametrize("elements", [["a.png"], [Path("a.png")], np.array(["a.png"]), np.array([b"x"]), [b"x", b"y"]])
def test_paths_and_files_are_no_pixels_to_encode(elements: Any) -> None:
    with pytest.raises(ArsrcTypeError, match=r"Image\.encode: takes pixels, .* Give the pixels"):
        Image((4, 4)).encode(elements)
