"""How the chunks of a file are encoded, as its first one says."""

import contextlib

from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    parse_chunk_header,
    read_stream,
)
from arsrc._host.format.streams import BROTLI, SNAPPY, ZSTD
from arsrc._host.storage.open_file import OpenFile

COMPRESSIONS = {0: "", BROTLI: "brotli", SNAPPY: "snappy", ZSTD: "zstd"}
"""By the letter that chunks name them with."""


def encoding_of(path: str) -> str:
    """Return "zstd", "transposed", "transposed zstd" and so on; empty where records stand as they are, or as it seems.

    Args:
        path: The file.
    """
    try:
        with contextlib.closing(OpenFile(path)) as file:
            data = read_stream(file, FIRST_CHUNK, CHUNK_HEADER_BYTES + 1)
            header = parse_chunk_header(data)
    except (OSError, LayoutError):
        return ""
    if header.kind not in ("r", "t"):
        return ""
    names = ["transposed" if header.kind == "t" else "", COMPRESSIONS.get(data[-1], "compressed")]
    return " ".join(filter(None, names))
