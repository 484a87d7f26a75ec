"""What kind of chunks a file is made of, as its first one says."""

import contextlib
from typing import NamedTuple

from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    parse_chunk_header,
    read_stream,
)
from arsrc._host.storage.open_file import OpenFile

COMPRESSIONS = {0: "", ord("b"): "brotli", ord("s"): "snappy", ord("z"): "zstd"}
"""By the letter that chunks name them with."""


class ChunkKind(NamedTuple):
    """What the chunks of a file are.

    Attributes:
        encoding: "zstd", "transposed", "transposed, zstd" and so on; empty where records stand as they are.
        group_size: Records in each chunk but the last one.
    """

    encoding: str = ""
    group_size: int = 1


def chunk_kind(path: str) -> ChunkKind:
    """Return what the chunks of a file are; where that cannot be seen, single records as they are."""
    try:
        with contextlib.closing(OpenFile(path)) as file:
            data = read_stream(file, FIRST_CHUNK, CHUNK_HEADER_BYTES + 1)
            header = parse_chunk_header(data)
    except (OSError, LayoutError):
        return ChunkKind()
    if header.kind not in ("r", "t"):
        return ChunkKind()
    names = ["transposed" if header.kind == "t" else "", COMPRESSIONS.get(data[-1], "compressed")]
    return ChunkKind(", ".join(filter(None, names)), max(1, header.num_records))
