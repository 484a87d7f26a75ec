"""A cache of elements in memory or in files, which several processes fill, close, clear and are killed over."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arsrc._host.records.cache import ElementCache

NUM_RECORDS = 12
LEAVES = [np.arange(24, dtype=np.int16).reshape(12, 2), np.linspace(0, 1, 12), np.empty((12, 0), np.uint8)]
EVERYTHING = list(range(NUM_RECORDS))
SHAPES: Any = [(leaf.shape[1:], leaf.dtype) for leaf in LEAVES]


class Process:
    """A cache as one process has it, and which rows it is to find there."""

    def __init__(self, folder: str | None, marked: set[int]) -> None:
        self.cache = ElementCache(NUM_RECORDS, SHAPES, folder)
        self.filled = set(marked)

    def get(self, ids: list[int]) -> None:
        loaded: list[int] = []

        def load(missing: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
            loaded.extend(missing.tolist())
            return missing, [leaf[missing] for leaf in LEAVES]

        leaves, num_found = self.cache.get(np.array(ids, np.int64), load)
        for leaf, expected in zip(leaves, LEAVES, strict=True):
            np.testing.assert_array_equal(leaf, expected[ids])
            assert leaf.dtype == expected.dtype
        assert loaded == [i for i in ids if i not in self.filled]
        assert num_found == len(ids) - len(loaded)
        self.filled |= set(ids)


some_ids = st.lists(st.integers(0, NUM_RECORDS - 1), max_size=NUM_RECORDS) | st.just(EVERYTHING)
steps = st.tuples(st.integers(0, 1), some_ids | st.sampled_from(["close", "close", "killed", "clear"]))


@given(st.lists(steps, max_size=12))
def test_rows_are_found_that_were_filled_here_or_written_out_by_anybody_before_this_one_began(
    steps: list[tuple[int, Any]],
) -> None:
    marked: set[int] = set()  # what is marked on the disk
    with tempfile.TemporaryDirectory() as folder:
        processes = [Process(folder, marked) for _ in range(2)]
        for number, step in steps:
            process = processes[number]
            if step == "close":
                process.cache.close()
                marked |= process.filled
            elif step == "killed":
                processes[number] = Process(folder, marked)
            elif step == "clear":
                process.cache.clear()
                process.filled, marked = set(), set()
            else:
                before = len(process.filled)
                process.get(step)
                if before < len(process.filled) == NUM_RECORDS:
                    marked |= process.filled
        Process(folder, marked).get(EVERYTHING)


@given(st.lists(some_ids | st.sampled_from(["close", "clear"]), max_size=8))
def test_rows_are_found_in_memory_until_they_are_cleared(steps: list[Any]) -> None:
    process = Process(None, set())
    for step in steps:
        if step == "close":
            process.cache.close()
        elif step == "clear":
            process.cache.clear()
            process.filled = set()
        else:
            process.get(step)


@pytest.mark.parametrize("before", [[], [0, 1, 2]], ids=["new", "begun"])
def test_a_cache_is_written_out_when_it_is_full_and_not_before(tmp_path: Path, before: list[int]) -> None:
    earlier = Process(str(tmp_path), set())
    earlier.get(before)
    earlier.cache.close()
    process = Process(str(tmp_path), set(before))
    process.get([3, 3, 0])
    Process(str(tmp_path), set(before)).get([3])
    process.get(EVERYTHING)
    Process(str(tmp_path), set(EVERYTHING)).get(EVERYTHING)


def test_what_two_processes_have_filled_is_there_for_the_third(tmp_path: Path) -> None:
    first, second = Process(str(tmp_path), set()), Process(str(tmp_path), set())
    first.get([0, 1, 2])
    second.get([2, 3])
    first.cache.close()
    second.cache.close()
    Process(str(tmp_path), {0, 1, 2, 3}).get([3, 2, 1, 0, 4])
