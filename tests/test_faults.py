"""Any call of the system may fail: what comes is the exact bytes or a typed error, and then the exact bytes again."""

import collections
import contextlib
import dataclasses
import gc
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis
import numpy as np
import pytest
from fault_systems import KINDS, METHODS, Call, Injecting, InMemory, Kind, NowAndThen, Nth, Order, in_place

import arsrc
from arsrc import ArrayRecordSourceConfig as Config
from arsrc._host import open_files, registry
from arsrc._host.storage import system
from arsrc._host.storage.system import System
from arsrc.codecs import Bytes, Ragged

IS_THOROUGH = hypothesis.settings().max_examples > 100
STEP = 1 if IS_THOROUGH else 7  # of so many calls one is tried


def random_records(sizes: list[int]) -> list[bytes]:
    draw = np.random.default_rng(0)
    return [draw.bytes(size) for size in sizes]


RAGGED = [7 * i % 90 for i in range(40)]
SETS: dict[str, tuple[list[int], dict[str, Any], Any]] = {
    "uniform": ([784] * 40, {}, Bytes()),
    "spans": (RAGGED, {}, Ragged(max_length=90)),
    "groups": (RAGGED, {"options": "group_size:7,uncompressed"}, Ragged(max_length=90)),
    "large": ([150_000] * 6, {}, Bytes()),
    "shards": ([100] * 40, {"num_shards": 3}, Bytes()),
    "zstd": ([784] * 40, {"options": "group_size:4,zstd"}, Bytes()),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for name, (sizes, how, codec) in SETS.items():
        paths = arsrc.write_array_record(folder / name, random_records(sizes), **how)
        found[name] = Config(paths, 6, codec, shuffle_records=True, num_epochs=1)
    return found


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(open_files, "_LOOK_SHARE", 0)  # however long looking takes on a busy machine
    arsrc.close()
    yield
    arsrc.close()


# What is done, on the host alone; each gives something to compare.


def digest(tree: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in arsrc_leaves(tree))).hexdigest()


def arsrc_leaves(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, dict) else list(tree) if isinstance(tree, list) else [tree]


def take(config: Config) -> Any:
    source = registry.source(config)
    ids = np.arange(source.plan.num_records, dtype=np.uint32)[::-1]
    return [digest(source.take(ids[None, first : first + 7])) for first in range(0, len(ids), 7)]


def iterate(config: Config) -> Any:
    return [(batch.record_ids.tolist(), digest(batch.data)) for _, batch in arsrc.iterate(config)]


def checkpoint(config: Config) -> Any:
    state = arsrc.state_at(config, 2)
    saved = arsrc.to_state_dict(config, state)
    restored = arsrc.from_state_dict(config, saved)
    return saved, int(restored.index), int(restored.epoch)


DONE: dict[str, Callable[[Config], Any]] = {"take": take, "iterate": iterate, "checkpoint": checkpoint}


# What came of it.


Tally: TypeAlias = collections.Counter[str]
TALLIES: dict[str, Tally] = collections.defaultdict(collections.Counter)


def try_each(kind: Kind, inner: System, work: Callable[[], Any], mend: Callable[[], None], tally: Tally) -> None:
    """Let the n-th call fail, n = 1, 2, ... until there are no more, once and from then on."""
    with in_place(inner):
        expected = work()
        arsrc.close()
    tried = []
    for once in (True, False):
        n, is_reached = 1, True
        while is_reached:
            rule = Nth(kind, n, once)
            calls = Injecting(inner, rule)
            tried.append(calls)
            where = f"call {n}, {'once' if once else 'from then on'}"
            with in_place(calls):
                try:
                    found = work()
                except arsrc.ArsrcError as error:
                    check_error(error, where)
                    outcome = "error"
                else:
                    assert found == expected, where
                    outcome = "exact"
                tally[outcome] += min(calls.num_faults, 1)
                calls.rule = lambda _: None
                mend()
                assert work() == expected, f"after {where}"
                arsrc.close()
            is_reached = rule.num_calls >= n
            n += STEP
    gc.collect()
    assert [calls.open_paths for calls in tried] == [{}] * len(tried)


def check_error(error: arsrc.ArsrcError, where: str) -> None:
    text = str(error)
    assert text.startswith("[arsrc] "), where
    assert "/" in text, where  # the file that it is about


FAILURES = ["EIO", "EMFILE", "ENOSPC", "EACCES", "ESTALE", "short"]
SOME = FAILURES if IS_THOROUGH else ["EIO", "short"]
MAPPED = [name for name in SETS if name != "zstd"]


class Unsynced(System):
    """The operating system, without waiting for disks."""

    def sync(self, fd: int) -> None:
        pass


@pytest.mark.parametrize("what", DONE)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", SOME)
def test_a_call_that_fails_gives_the_exact_bytes_or_a_typed_error(
    configs: dict[str, Config], kind: str, name: str, what: str
) -> None:
    config = configs[name]
    try_each(KINDS[kind], System(), lambda: DONE[what](config), lambda: None, TALLIES[kind])


def in_memory(config: Config) -> tuple[InMemory, Config, Callable[[], None]]:
    """The files of a config in memory, and what puts them there once more."""
    memory = InMemory()
    files = {f"/memory/{Path(path).name}": Path(path).read_bytes() for path in config.paths}

    def mend() -> None:
        for path, data in files.items():
            memory.put(path, data)

    mend()
    return memory, dataclasses.replace(config, paths=list(files)), mend


@pytest.mark.parametrize("what", DONE)
@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("kind", [*SOME, "cut"])
def test_files_in_memory_are_read_by_maps_alone_or_give_a_typed_error(
    configs: dict[str, Config], kind: str, name: str, what: str
) -> None:
    memory, config, mend = in_memory(configs[name])
    try_each(KINDS[kind], memory, lambda: DONE[what](config), mend, TALLIES[f"{kind}, in memory"])
    assert memory.num_open == 0


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("kind", ["zeros", "another place"])
@pytest.mark.parametrize("what", ["take", "iterate"])
def test_wrong_bytes_are_noticed_where_files_are_indexed(
    configs: dict[str, Config], kind: str, name: str, what: str
) -> None:
    """Not those of payloads, which only hashes see, nor those in samples of files, which make another fingerprint."""
    config, some = configs[name], Kind(KINDS[kind].fault, {"pread"})
    try_each(some, System(), lambda: DONE[what](config), lambda: None, TALLIES[kind])


@pytest.mark.parametrize("name", ["shards", "zstd"])
def test_calls_that_hang_are_waited_for_and_hold_up_no_other_source(configs: dict[str, Config], name: str) -> None:
    expected, other = iterate(configs[name]), take(configs["uniform"])
    arsrc.close()
    n, is_reached = 1, True
    while is_reached:
        go_on, hangs = threading.Event(), threading.Event()

        def hang(call: Call, go_on: threading.Event = go_on, hangs: threading.Event = hangs) -> Any:
            hangs.set()
            assert go_on.wait(60)
            return call()

        calls = Injecting(System(), Nth(Kind(hang, set(METHODS) - {"close", "unmap"}), n))
        with in_place(calls), ThreadPoolExecutor(1) as thread:
            found = thread.submit(iterate, configs[name])
            while not hangs.wait(0.01) and not found.done():
                pass
            calls.rule = lambda _: None
            is_reached = hangs.is_set()
            try:
                assert take(configs["uniform"]) == other
            finally:
                go_on.set()
            assert found.result(60) == expected
            arsrc.close()
        TALLIES["hang"]["exact"] += is_reached
        n += STEP


def is_mixed(folder: Path) -> bool:
    """Whether a writer has left off, or is, where the set is no whole."""
    file = folder / ".data.array_record.writing"
    return file.exists() and file.stat().st_size > 0


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("kind", FAILURES if IS_THOROUGH else ["EIO", "ENOSPC"])
def test_a_writer_whose_calls_fail_leaves_the_old_files_or_the_new_ones_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, num_shards: int
) -> None:
    monkeypatch.setattr(system, "calls", Unsynced())
    old, new = [b"old%d" % i for i in range(9)], [b"new%d" % i for i in range(9)]
    path = tmp_path / "data.array_record"
    names = arsrc.write_array_record(path, old, num_shards=num_shards)
    config = Config(names, 3, num_epochs=1)

    def rows() -> list[bytes]:
        return [bytes(row) for row in np.concatenate([batch.data for _, batch in arsrc.iterate(config)])]

    for once in (True, False):
        n, is_reached = 1, True
        while is_reached:
            calls = Injecting(Unsynced(), Nth(KINDS[kind], n, once))
            with in_place(calls):
                try:
                    arsrc.write_array_record(path, new, num_shards=num_shards)
                    is_written = True
                except arsrc.ArsrcError as error:
                    check_error(error, f"call {n}")
                    is_written = False
            found: list[bytes] | None = None
            if n % 2:
                arsrc.close()  # else what is open already is read on, where it did not change
            if not is_mixed(tmp_path):
                found = rows()
                assert found == new if is_written else found in (old, new)
            else:
                with contextlib.suppress(arsrc.ArsrcReadError):
                    found = rows()
                    assert (found, n % 2) == (old, 0)
                assert not is_written
            left = sorted(os.listdir(tmp_path))
            assert once is False or [name for name in left if name.endswith(".tmp")] == []
            TALLIES[f"{kind}, writing"]["exact" if found else "error"] += min(calls.num_faults, 1)
            gc.collect()
            assert calls.open_paths == {}
            is_reached = calls.num_faults > 0
            arsrc.write_array_record(path, old, num_shards=num_shards)
            assert rows() == old
            if num_shards > 1:  # what was left is gone; of single files nobody can tell whether their writer lives
                assert sorted(os.listdir(tmp_path)) == sorted(os.path.basename(name) for name in names)
            n += STEP


# Threads in a seed's order.


def counted_by_two(seed: int) -> tuple[int, list[tuple[str, str]]]:
    """Let two threads add to a number in a file three times each, with a fault of their own: nothing locks it."""
    memory = InMemory()
    memory.put("/number", bytes([0]))
    calls = Injecting(memory)
    fd = calls.open("/number", os.O_RDWR)

    def add() -> None:
        for _ in range(3):
            (number,) = calls.pread(fd, 1, 0)
            calls.pwrite(fd, bytes([number + 1]), 0)
        order.leave()

    threads = [threading.Thread(target=add, name=name) for name in ("one", "two")]
    calls.order = order = Order(seed, threads, seconds=10.0)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return memory.pread(fd, 1, 0)[0], calls.log


def test_a_failure_that_hangs_on_the_order_of_threads_is_replayed_by_its_seed() -> None:
    results = {seed: counted_by_two(seed) for seed in range(40)}
    numbers = {number for number, _ in results.values()}
    assert {6} < numbers  # some orders lose nothing, others do
    for seed, result in results.items():
        assert counted_by_two(seed) == result
    assert len({tuple(log) for _, log in results.values()}) > 10


@pytest.mark.parametrize("name", ["shards", "large", "zstd"])
def test_threads_in_the_order_of_a_seed_and_faults_now_and_then(configs: dict[str, Config], name: str) -> None:
    config, works = configs[name], [take, iterate]
    expected = [work(config) for work in works]
    arsrc.close()
    for seed in range(200 if IS_THOROUGH else 8):
        outcomes: list[Any] = [None, None]

        def run(number: int, outcomes: list[Any] = outcomes) -> None:
            try:
                outcomes[number] = works[number](config)
            except Exception as error:
                outcomes[number] = error

        threads = [threading.Thread(target=run, args=(number,), name=f"work {number}") for number in range(2)]
        calls = Injecting(System(), NowAndThen(seed, 0.1, FAILURES), Order(seed, threads, seconds=0.02))
        with in_place(calls):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            calls.rule = lambda _: None
            for outcome, exact in zip(outcomes, expected, strict=True):
                if isinstance(outcome, Exception):
                    assert isinstance(outcome, arsrc.ArsrcError), f"seed {seed}: {outcome!r}"
                    check_error(outcome, f"seed {seed}")
                else:
                    assert outcome == exact, f"seed {seed}"
                TALLIES["now and then"]["error" if isinstance(outcome, Exception) else "exact"] += 1
            assert [work(config) for work in works] == expected, f"after seed {seed}"
            arsrc.close()
        outcomes.clear()
        del outcome
        gc.collect()
        assert calls.open_paths == {}, f"seed {seed}"


def teardown_module() -> None:
    for kind, tally in sorted(TALLIES.items()):
        sys.stdout.write(f"\n{kind}: {dict(tally)}")  # seen with -s
