"""A contestant that no reader of zstd files can beat: zstd itself, on frames that were taken out of a file before."""

import collections
import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import _machine
import numpy as np
import zstandard
from _array_record import orders
from _arsrc import BATCH, CHECKED
from _data import DataSet
from _harness import Contestant, Pieces, Session
from _records import join
from numpy.typing import NDArray

_BATCHES_PER_TASK = 16
_BLOCK_BYTES, _BLOCK_HEADER_BYTES, _CHUNK_HEADER_BYTES = 2**16, 24, 40


def decode(data: DataSet) -> Contestant:
    """`multi_decompress_to_buffer` of 256 random frames a call, on a thread for each core."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        frames, segments = _frames(data)
        sizes = np.full(BATCH, data.record_bytes, np.uint64).tobytes()
        num_threads = _machine.num_cores()

        def batches(turn: int) -> Iterator[bytes]:
            yield from [segments[ids].tobytes() for ids in orders(data, BATCH, turn)]

        def decoded(decompressor: zstandard.ZstdDecompressor, batch: bytes) -> Any:
            found = zstandard.BufferWithSegments(frames, batch)
            return decompressor.multi_decompress_to_buffer(found, decompressed_sizes=sizes)

        def task(batches: list[bytes]) -> None:
            decompressor = zstandard.ZstdDecompressor()
            for batch in batches:
                decoded(decompressor, batch)

        def pieces(turn: int) -> Pieces:
            every = itertools.cycle(batches(turn))
            tasks = (pool.submit(task, list(itertools.islice(every, _BATCHES_PER_TASK))) for _ in itertools.count())
            begun = collections.deque(itertools.islice(tasks, 2 * num_threads))
            while True:
                begun.popleft().result()
                begun.append(next(tasks))
                yield _BATCHES_PER_TASK * BATCH, lambda: None

        def checked() -> Iterator[Any]:
            for batch in itertools.islice(batches(0), CHECKED):
                found = decoded(zstandard.ZstdDecompressor(), batch)
                yield join([found[row].tobytes() for row in range(len(found))])

        with ThreadPoolExecutor(num_threads) as pool:
            yield Session(pieces, checked)

    counts = "zstd alone, a thread for each core; finding the frames before, copying the result and the step are not"
    return Contestant("bare zstd", "floor", counts, opened)


def _frames(data: DataSet) -> tuple[Any, NDArray[np.uint64]]:
    """Return the file without its block headers, and u64[num_records, 2], where frames begin in it and their lengths.

    One record to a chunk, as described in https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
    """
    (path,) = data.paths
    raw = np.fromfile(path, np.uint8)
    blocks = np.pad(raw, (0, -len(raw) % _BLOCK_BYTES)).reshape(-1, _BLOCK_BYTES)
    chunks = memoryview(blocks[:, _BLOCK_HEADER_BYTES:].tobytes())
    segments = np.empty((data.num_records, 2), np.uint64)
    at = _CHUNK_HEADER_BYTES  # the first chunk is the file's signature
    for row in range(data.num_records):
        data_bytes = int.from_bytes(chunks[at + 8 : at + 16], "little")
        begin = at + _CHUNK_HEADER_BYTES
        assert chunks[begin] == ord("z")
        sizes_bytes, sizes = _varint(chunks, begin + 1)
        record_bytes, frame = _varint(chunks, sizes + sizes_bytes)
        assert record_bytes == data.record_bytes
        at = begin + data_bytes
        segments[row] = frame, at - frame
    return chunks, segments


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a byte, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
