"""A sample of what a file holds, from kilobytes of it."""

import contextlib
import hashlib
import struct

from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    logical,
    parse_block_header,
    parse_chunk_header,
    read_footer_offset,
    read_stream,
)
from arsrc._host.storage.open_file import OpenFile
from arsrc.errors import ArsrcReadError

_SAMPLE_VERSION = b"arsrc content sample 1"


def content_sample(path: str, num_samples: int) -> bytes:
    """Return 32 bytes that identify what a file holds, after reading kilobytes of it.

    Hashed are its size, the headers (and in them the data hashes) of the footer, the first chunk and those at
    about `num_samples` block boundaries spread over the file, and the last block in front of the footer as it
    is. So any change in the number or encoded size of chunks shows; a changed payload shows where it was
    sampled. Moving or copying the file changes nothing; neither compression nor group size matters.

    Args:
        path: An ArrayRecord file.
        num_samples: How many places to look at besides the first chunk and the last block.

    Raises:
        ArsrcReadError: The file cannot be read, or is no complete ArrayRecord file.
    """
    try:
        with contextlib.closing(OpenFile(path)) as file:
            return _digest(file, file.stamp().num_bytes, num_samples)
    except OSError as error:
        what = f"cannot read a file ({error.strerror})"
        raise ArsrcReadError("fingerprint", what, path=path) from error
    except LayoutError as error:
        what = f"is no complete ArrayRecord file ({error})"
        fix = "Check that it was written and copied to the end."
        raise ArsrcReadError("fingerprint", what, fix, path=path) from error


def _digest(file: OpenFile, num_bytes: int, num_samples: int) -> bytes:
    footer_offset = read_footer_offset(file, num_bytes)
    last_block = (footer_offset - 1) // BLOCK_BYTES  # the block that holds the byte in front of the footer
    sampled = {1 + (2 * i + 1) * (last_block - 1) // (2 * num_samples) for i in range(num_samples)}
    digest = hashlib.blake2b(_SAMPLE_VERSION + struct.pack("<2Q", num_bytes, footer_offset), digest_size=32)
    digest.update(read_stream(file, FIRST_CHUNK, CHUNK_HEADER_BYTES))
    for block in sorted(sampled | {last_block}):
        if 0 < block <= last_block:
            digest.update(_header_at(file, block * BLOCK_BYTES))
    begin = max(last_block * BLOCK_BYTES, FIRST_CHUNK)
    tail = logical(footer_offset) - logical(begin)
    digest.update(read_stream(file, begin, tail + CHUNK_HEADER_BYTES))
    return digest.digest()


def _header_at(file: OpenFile, boundary: int) -> bytes:
    """Return the header of the chunk around a block boundary, or of the one before where that is padding."""
    while True:
        data = file.read(BLOCK_HEADER_BYTES + CHUNK_HEADER_BYTES, boundary)
        previous_chunk, _ = parse_block_header(data)
        header = data[BLOCK_HEADER_BYTES:]
        if previous_chunk:
            if previous_chunk > boundary - FIRST_CHUNK:
                return data  # damaged: no reason to refuse a file that array_record may still read
            header = read_stream(file, boundary - previous_chunk, CHUNK_HEADER_BYTES)
        # Padding says nothing about the content; it begins in the block in which the data before it ends.
        before = (boundary - previous_chunk) // BLOCK_BYTES * BLOCK_BYTES
        if parse_chunk_header(header).kind != "p" or not 0 < before < boundary:
            return header
        boundary = before
