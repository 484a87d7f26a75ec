"""Decoded groups are kept within a bound, each loaded once for all who want it, and what fails is not kept."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arsrc._host.readers.group_cache import GroupCache, Groups
from arsrc._host.readers.official import ReadFailure
from arsrc.record_batch import RecordBatch

SIZES = {name: 10 + name % 3 * 20 for name in range(12)}
BAD = {5, 10}


class Loads:
    """Loads groups of the right sizes, but for bad ones; knows which."""

    def __init__(self) -> None:
        self.names: list[int] = []

    def __call__(self, names: Sequence[int]) -> Groups:
        self.names += names
        return {name: ReadFailure("bad", "") if name in BAD else group(name) for name in names}


def group(name: int) -> RecordBatch:
    return RecordBatch.from_records([bytes((name,)) * SIZES[name]])


def check(found: Groups, names: Sequence[int]) -> None:
    assert set(found) == set(names)
    for name, batch in found.items():
        if name in BAD:
            assert isinstance(batch, ReadFailure)
        else:
            assert isinstance(batch, RecordBatch)
            assert batch[0] == group(name)[0]


@given(st.integers(0, 120), st.lists(st.lists(st.sampled_from(sorted(SIZES)), unique=True, max_size=6), max_size=20))
def test_the_ones_used_last_are_kept_as_far_as_they_fit(max_bytes: int, wanted: list[list[int]]) -> None:
    cache, load = GroupCache(max_bytes), Loads()
    kept: list[int] = []
    for names in wanted:
        load.names.clear()
        check(cache.get({name: SIZES[name] for name in names}, load), names)
        there = [name for name in names if name in kept]
        assert load.names == [name for name in names if name not in there]
        kept = [name for name in kept if name not in there] + there
        for name in (name for name in names if name not in there and SIZES[name] <= max_bytes):
            kept.append(name)
            while sum(SIZES[one] for one in kept) > max_bytes:
                kept.pop(0)
        kept = [name for name in kept if name not in BAD]
        assert cache.num_bytes == sum(SIZES[name] for name in kept) <= max_bytes
    cache.clear()
    assert cache.num_bytes == 0


def test_who_wants_what_another_loads_waits_for_it_and_loads_the_rest() -> None:
    cache, going, release = GroupCache(1000), threading.Event(), threading.Event()
    first, second = Loads(), Loads()

    def slowly(names: Sequence[int]) -> Groups:
        going.set()
        assert release.wait(30)
        return first(names)

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(cache.get, {1: 30, 2: 50}, slowly)
        assert going.wait(30)
        other = threads.submit(cache.get, {2: 50, 3: 10}, second)
        release.set()
        check(one.result(30), [1, 2])
        check(other.result(30), [2, 3])
    assert (first.names, second.names) == ([1, 2], [3])
    assert cache.num_bytes == 90


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_a_load_that_raised_the_next_who_asks_loads(error: type[BaseException]) -> None:
    cache, load = GroupCache(1000), Loads()

    def fails(names: Sequence[int]) -> Groups:
        del names
        raise error

    with pytest.raises(error):
        cache.get({1: 30, 2: 50}, fails)
    assert cache.num_bytes == 0
    check(cache.get({1: 30}, load), [1])
    assert load.names == [1]


def test_what_is_let_go_of_while_it_is_loaded_reaches_those_who_asked() -> None:
    cache, load = GroupCache(1000), Loads()

    def clears(names: Sequence[int]) -> Groups:
        cache.clear()
        return load(names)

    check(cache.get({1: 30, 2: 50}, clears), [1, 2])
    assert cache.num_bytes == 0
    check(cache.get({1: 30}, load), [1])
    assert load.names == [1, 2, 1]
    assert cache.num_bytes == 30
