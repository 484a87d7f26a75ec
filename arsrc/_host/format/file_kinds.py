"""What a file is that is no ArrayRecord file: told by its first bytes, and by how it ends."""

import codecs
import re
import struct
import zlib

from arsrc._host.format.layout import LayoutError, read_footer_offset
from arsrc._host.storage.open_file import OpenFile

_HEAD_BYTES = 512
_GZIP = b"\x1f\x8b"

# The header of the first block and the chunk without data behind it, with which each file begins.
SIGNATURE = struct.pack(
    "<8Q", 0x3F4A880DD170AF83, 0, 64, 0xA9E187923CC2BA91, 0, 0x72C3B1E9C0139FE1, ord("s"), 0
)  # fmt: skip

_WRITE = "Write what it holds with write_array_record, and read that."
_CONVERT = "Convert it: arsrc convert IN OUT."
_LINES = f"If each line holds one JSON value: arsrc convert IN OUT. Else: {_WRITE[0].lower()}{_WRITE[1:]}"
_PICTURES = "Write the bytes of such files with write_array_record, and read them by the codec Image."
_COPY = "Check that it was written and copied to the end."
_UNPACK = "Unpack it."
_ARCHIVE = "Unpack it, or if it is of {}: arsrc convert IN OUT."

# Where which bytes stand in files of other kinds, and what to do about them.
_MARKS = [
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "Get the file itself, by git lfs pull."),
    (0, b"PK\x03\x04", "a zip archive", _ARCHIVE.format("npz")),
    (257, b"ustar", "a tar archive", _ARCHIVE.format("WebDataset")),
    (0, b"\x28\xb5\x2f\xfd", "a file compressed by zstd", _UNPACK),
    (0, b"\xfd7zXZ\x00", "a file compressed by xz", _UNPACK),
    (0, b"BZh", "a file compressed by bzip2", _UNPACK),
    (0, b"PAR1", "a Parquet file", _CONVERT),
    (0, b"ARROW1", "an Arrow file", _WRITE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _WRITE),
    (0, b"\x93NUMPY", "a NumPy file", _WRITE),
    (0, b"SQLite format 3\x00", "a SQLite file", _WRITE),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _PICTURES),
    (0, b"\xff\xd8\xff", "a JPEG image", _PICTURES),
    (0, b"GIF8", "a GIF image", _PICTURES),
    (8, b"WEBPVP8", "a WebP image", _PICTURES),
]
_PAGE = re.compile(r"<!doctype html|<html", re.IGNORECASE)
_JSON = re.compile(r'\{\s*["}]|\[\s*[\[{"\d\]-]')


def what_is_wrong(file: OpenFile, num_bytes: int, why: str) -> tuple[str, str]:
    """Return what is wrong with a file of `num_bytes`, and what to do about it; `why` where it looks whole."""
    head = file.read(_HEAD_BYTES, 0)
    if not head:
        return "is empty", f"{_COPY} Until its writer is closed, a file may be empty."
    if not head.strip(b"\x00"):
        return "is no ArrayRecord file: it begins with zeros", _COPY
    if not SIGNATURE.startswith(head[: len(SIGNATURE)]):
        kind, fix = kind_of_file(head)
        return f"is no ArrayRecord file, but {kind}", fix
    try:
        read_footer_offset(file, num_bytes)
    except LayoutError as error:
        return f"is no complete ArrayRecord file: it begins as one, but does not end as one ({error})", _COPY
    return f"is a damaged ArrayRecord file ({why})", "Write or copy it anew."


def kind_of_file(head: bytes) -> tuple[str, str]:
    """Return what it is that begins so, and what to do about it."""
    for at, mark, kind, fix in _MARKS:
        if head.startswith(mark, at):
            return kind, fix
    if head.startswith(_GZIP):
        kind, fix = _packed(head)
        return f"a gzip file{kind}", fix
    if is_tfrecord(head):
        return "a TFRecord file", _CONVERT
    text = _text(head)
    if text is None:
        return f"a file that begins with the bytes {head[:8].hex(' ')}", "Check its path, and how it was written."
    if _PAGE.match(text):
        return "a web page", "Download it anew: in place of the file, the server gave a page."
    return ("a JSON file", _LINES) if _JSON.match(text) else ("a text file", _WRITE)


def _packed(head: bytes) -> tuple[str, str]:
    """Return what is inside of a gzip file, and what to do about it."""
    try:
        inside = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEAD_BYTES)
    except zlib.error:
        inside = b""
    if inside.startswith(SIGNATURE):
        return " of an ArrayRecord file", _UNPACK
    if inside.startswith(_GZIP):  # which is not looked into: there are files that unpack to themselves
        return " of a gzip file", _UNPACK
    if not inside:
        return "", _UNPACK
    kind, fix = kind_of_file(inside)
    return f" of {kind}", fix


def is_tfrecord(head: bytes) -> bool:
    """Whether bytes begin with a length and its checksum, as each record of a TFRecord file does."""
    crc = 0xFFFFFFFF  # CRC-32C
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (crc & 1) * 0x82F63B78
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return head[8:12] == struct.pack("<I", masked)


def _text(head: bytes) -> str | None:
    """Return bytes as text, without space in front of it; None if they are none."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    return text.lstrip() if all(char.isprintable() or char.isspace() for char in text) else None
