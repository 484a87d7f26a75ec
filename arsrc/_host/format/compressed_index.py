"""Where the chunks of a compressed file lie: its footer, decoded, and a look at some of its chunks.

The footer is compressed as the file is. Any surprise is an error, and means that array_record's own reader reads the
file; what a chunk says is compared once more each time it is read.
"""

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.chunk_data import FRONT_BYTES, decode_chunk, read_fronts, read_headers
from arsrc._host.format.chunked import Chunked
from arsrc._host.format.footer import Chunks, Footer, parse_counts, read_chunks, read_footer_header
from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    LayoutError,
    logical,
    physical,
    read_stream,
)
from arsrc._host.format.places import Enclosing
from arsrc._host.format.streams import BROTLI, can_decode
from arsrc._host.machine.memory import free_bytes
from arsrc._host.storage.open_file import OpenFile

_NUM_LOOKS = 8
_BYTES_FOR_RECORD = 40  # to find where each of a group begins
_SMALL_BYTES = 1 << 28  # asking how much memory is free takes longer than opening a file


def index_compressed(file: OpenFile, num_bytes: int) -> tuple[int, Chunked]:
    """Return how many records an open file of `num_bytes` holds, and where its chunks lie.

    Raises:
        LayoutError: It is not compressed, or in a way that cannot be decoded here; it is transposed, damaged or empty.
    """
    letter, footer = read_compressed_footer(file, num_bytes)
    chunks = Chunks(*map(np.concatenate, zip(*read_chunks(file, footer), strict=True)))
    group_size, most = int(chunks.counts[0]), int(chunks.decoded_sizes.max())
    if (chunks.counts[:-1] != group_size).any() or not 1 <= chunks.counts[-1] <= group_size:
        raise LayoutError("chunks differ in their number of records")
    begins = np.append(chunks.begins, footer.begin)
    if (np.diff(begins) < CHUNK_HEADER_BYTES).any():
        raise LayoutError("chunks overlap")
    largest = most + _BYTES_FOR_RECORD * group_size
    if largest > _SMALL_BYTES and largest > free_bytes():
        raise LayoutError(f"a chunk takes {largest} bytes of memory")
    sizes = np.zeros(len(begins), np.min_scalar_type(most))
    sizes[:-1] = chunks.decoded_sizes
    _look(file, letter, begins, chunks)
    return footer.num_records, Chunked(letter, group_size, footer.num_records, begins, sizes)


def read_compressed_footer(file: OpenFile, num_bytes: int) -> tuple[int, Footer]:
    """Return the letter of a file's compression, and its footer.

    Raises:
        LayoutError: It is not compressed, or in a way that cannot be decoded here, or damaged.
    """
    offset, header = read_footer_header(file, num_bytes)
    begin = logical(offset)
    data = memoryview(read_stream(file, physical(begin + CHUNK_HEADER_BYTES), header.data_size))
    letter = data[0] if data else 0
    if not can_decode(letter):
        raise LayoutError("the footer is not compressed, or in a way that cannot be decoded here")
    records = decode_chunk(data, letter, header.num_records, header.decoded_size)
    num_chunks, num_records, options = parse_counts(records[0])
    if header.num_records != num_chunks + 1 or not num_chunks:
        raise LayoutError("the footer lists another number of chunks than it says")
    first, end = int(records.offsets[1]), int(records.offsets[-1])
    return letter, Footer(begin, num_chunks, num_records, first, end - first, b"", options, records.data.data)


def _look(file: OpenFile, letter: int, begins: NDArray[np.int64], chunks: Chunks) -> None:
    """Look whether some chunks, spread over the file, are what the footer says, and of the kind that is known."""
    last = len(begins) - 2
    rows = np.unique(np.linspace(0, last, _NUM_LOOKS).astype(np.int64))
    data = b"".join(read_stream(file, physical(begin), FRONT_BYTES) for begin in begins[rows].tolist())
    fronts = np.frombuffer(data, np.uint8).reshape(-1, FRONT_BYTES)
    some = Enclosing(begins[rows], begins[rows + 1], chunks.decoded_sizes[rows], chunks.counts[rows])
    are_lone = chunks.counts[0] == 1
    if are_lone and letter == BROTLI:  # of which array_record's reader takes less time
        raise LayoutError("records are compressed one by one, by brotli")
    is_other = read_fronts(fronts, some, letter).is_other if are_lone else read_headers(fronts, some)[1]
    if is_other.any() or (fronts[:, CHUNK_HEADER_BYTES] != letter).any():
        raise LayoutError("a chunk is transposed, or not what the footer says")
