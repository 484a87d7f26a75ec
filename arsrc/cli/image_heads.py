"""What an image is, told by its first bytes: its format, and how large it is."""

from typing import NamedTuple

_CHANNELS_OF_PNG = {0: 1, 2: 3, 3: 3, 4: 1, 6: 4}
# Markers of JPEG behind which its size stands: all kinds of frames.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageHead(NamedTuple):
    """What the head of an image says.

    Attributes:
        format: "JPEG", "PNG", "WebP", "GIF" or "BMP".
        height: Rows.
        width: Columns.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        bits: Of a channel.
    """

    format: str
    height: int
    width: int
    channels: int
    bits: int = 8


def image_head(data: bytes) -> ImageHead | None:
    """Return what the head of an image says; None: the bytes are none, or end too early, or it has no pixels."""
    head = _head(data)
    return head if head is not None and head.height and head.width else None


def _head(data: bytes) -> ImageHead | None:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 26:
        channels = _CHANNELS_OF_PNG.get(data[25], 3)
        return ImageHead("PNG", _big(data[20:24]), _big(data[16:20]), channels, 16 if data[24] == 16 else 8)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return ImageHead("GIF", _little(data[8:10]), _little(data[6:8]), 3)
    if data.startswith(b"BM") and len(data) >= 54 and data[6:10] == bytes(4):
        height = int.from_bytes(data[22:26], "little", signed=True)
        return ImageHead("BMP", abs(height), _little(data[18:22]), 3)
    return None


def _jpeg(data: bytes) -> ImageHead | None:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _FRAMES:
            channels = 1 if data[at + 9] == 1 else 3
            return ImageHead("JPEG", _big(data[at + 5 : at + 7]), _big(data[at + 7 : at + 9]), channels, data[at + 4])
        else:
            at += 2 + _big(data[at + 2 : at + 4])
    return None


def _webp(data: bytes) -> ImageHead | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        return ImageHead("WebP", _little(data[28:30]) & 0x3FFF, _little(data[26:28]) & 0x3FFF, 3)
    if kind == b"VP8L":
        bits = _little(data[21:25])
        return ImageHead("WebP", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4 if bits >> 28 & 1 else 3)
    if kind == b"VP8X":
        return ImageHead("WebP", _little(data[27:30]) + 1, _little(data[24:27]) + 1, 4 if data[20] & 0x10 else 3)
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
