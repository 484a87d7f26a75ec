"""Copying records out of blocks: at every place around a block header, against the stream without headers."""

import numpy as np
import pytest

from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, gather_ragged, scatter
from arsrc._host.format.layout import BLOCK_BYTES, BLOCK_HEADER_BYTES, STREAM_BYTES, to_physical

DATA = np.random.default_rng(0).integers(0, 256, 4 * BLOCK_BYTES, np.uint8)
STREAM = DATA.reshape(-1, BLOCK_BYTES)[:, BLOCK_HEADER_BYTES:].tobytes()


def starts_around(length: int) -> np.ndarray:
    """Logical positions of records that end in front of a block header, are cut by it anywhere, or begin behind it."""
    edges = {-length - 1, -length, 1 - length, 2 - length, -length // 2, -2, -1, 0, 1}
    distances = sorted(edges | set(range(-length, 0)) if length < 1_000 else edges)
    starts = np.array([block * STREAM_BYTES + by for block in range(5) for by in distances])
    return starts[(starts >= 0) & (starts <= len(STREAM) - length)]


def expected(starts: np.ndarray, lengths: np.ndarray) -> bytes:
    return b"".join(STREAM[start : start + length] for start, length in zip(starts, lengths, strict=True))


def outputs(num_bytes: int) -> list[np.ndarray | None]:
    return [None, np.full(num_bytes + 5, 0xAA, np.uint8)]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 24, 25, 784, LARGE_RECORD_BYTES, STREAM_BYTES - 1, STREAM_BYTES])
def test_records_of_one_length_are_copied_whole_wherever_a_header_cuts_them(length: int) -> None:
    starts = starts_around(length)
    for order in (starts, starts[::-1]):
        wanted = expected(order, np.full(len(order), length))
        for out in outputs(len(wanted)):
            assert gather_equal(DATA, to_physical(order), length, out).tobytes() == wanted
            assert out is None or out.tobytes() == wanted + b"\xaa" * 5


@pytest.mark.parametrize("num_rows", [0, 1, 7, 400, None], ids=lambda number: "all" if number is None else number)
def test_records_of_any_lengths_are_copied_whole_wherever_headers_cut_them(num_rows: int | None) -> None:
    choices = [0, 1, 2, 24, 25, 100, STREAM_BYTES - 1, STREAM_BYTES, STREAM_BYTES + 1, 2 * STREAM_BYTES]
    places = [(start, length) for length in choices for start in starts_around(length).tolist()]
    if num_rows is not None:
        places = np.random.default_rng(0).choice(places, num_rows).tolist()
    starts, lengths = np.array(places, np.int64).reshape(-1, 2).T
    wanted = expected(starts, lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    for out in outputs(len(wanted)):
        assert gather_ragged(DATA, starts, offsets, out).tobytes() == wanted
        assert out is None or out.tobytes() == wanted + b"\xaa" * 5


@pytest.mark.parametrize("length", [0, 1, 25, 784, STREAM_BYTES, 2 * STREAM_BYTES + 7])
@pytest.mark.parametrize("gap", [0, 1, 300])
def test_runs_are_copied_each_to_its_place_wherever_a_header_cuts_them(length: int, gap: int) -> None:
    starts = starts_around(length)[:: max(1, length // 100)]
    lengths = np.full(len(starts), length)
    places = np.arange(len(starts)) * (length + gap) + 3
    out = np.full(int(places[-1]) + length + 5, 0xAA, np.uint8)
    scatter(DATA, starts, lengths, out, places)
    found = b"".join(out[place : place + length].tobytes() for place in places)
    assert found == expected(starts, lengths)
    assert out[:3].tolist() == [0xAA] * 3
    assert out[places[-1] + length :].tolist() == [0xAA] * 5
