"""How a picture is to be turned: the orientation in its EXIF, read without anything else of it."""

import struct

_ORIENTATION, _SHORT = 0x0112, 3
_MARKS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation(exif: bytes) -> int:
    """Return the number from 1 to 8 that EXIF says; 1, as it is, where it says none, or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = _MARKS.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * num_entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION:
                return int(value) if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:  # it ends before
        pass
    return 1


def exif_of_jpeg(data: bytes) -> bytes:
    """Return the EXIF of a JPEG, empty where there is none."""
    at = 2
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] == b"\xff":  # fills up
            at += 1
            continue
        if data[at + 1 : at + 2] == b"\xda":  # from here on there are pixels
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if data[at + 1 : at + 2] == b"\xe1" and segment.startswith(b"Exif\0\0"):
            return segment
        at += 2 + max(length, 2)
    return b""
