"""How long things live: what sources share, who waits for whom, and when files, threads and memory are given back."""

import contextlib
import dataclasses
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host import registry
from arsrc._host.machine import threads
from arsrc.codecs import Bytes, Map

NUM_FILES = 20
FILE_SIZE = 50
RECORD_BYTES = 16
DATA = np.random.default_rng(0).integers(0, 256, (NUM_FILES * FILE_SIZE, RECORD_BYTES), dtype=np.uint8)
SPEC = ("uint8", RECORD_BYTES)
LONG = 60.0  # seconds: whoever waits so long hangs

only_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> Path:
    """`mapped/` twenty shards, and `grouped`, one compressed file with the same records."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mapped").mkdir()
    rows = [row.tobytes() for row in DATA]
    for file in range(NUM_FILES):
        some = rows[file * FILE_SIZE : (file + 1) * FILE_SIZE]
        write_records(folder / "mapped" / f"{file:02d}", some, "group_size:1,uncompressed")
    write_records(folder / "grouped", rows, "group_size:100")
    return folder


@pytest.fixture
def mapped(folder: Path) -> str:
    return f"{folder}/mapped/*"


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    arsrc.close()
    yield
    arsrc.close()


def check_batch(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> arsrc.SourceState:
    """Fetch a batch, compare it with the data, and return the next state."""
    after, batch = arsrc.next_batch(config, state)
    np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
    return after


def pixels(record: bytes) -> Any:
    return np.frombuffer(record, np.uint8)


def slowly(record: bytes) -> Any:
    time.sleep(0.002)
    return np.frombuffer(record, np.uint8)


class Held:
    """A codec's function that waits for `go` once, at its first record; `calls` counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, record: bytes) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(LONG)
        return np.frombuffer(record, np.uint8)


class Thread(threading.Thread):
    """A thread whose result, or error, `result()` gives."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(LONG)
        assert not self.is_alive(), "a thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


# What sources share.


class Usage(NamedTuple):
    """What this process has open of some files, and its threads."""

    maps: int
    descriptors: int
    threads: int


def usage(folder: Path) -> Usage:
    gc.collect()
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return Usage(
        Path("/proc/self/maps").read_text().count(str(folder)),
        sum(link.startswith(str(folder)) for link in links),
        threading.active_count(),
    )


@only_linux
def test_a_further_seed_name_or_batch_size_costs_no_file_no_map_and_no_thread(folder, mapped):
    config = ArrayRecordSourceConfig(mapped, 8, shuffle_records=True, read=ReadOptions(num_threads=1))
    next(arsrc.iterate(config))
    before = usage(folder)
    assert before.maps == before.descriptors == NUM_FILES
    others = [dataclasses.replace(config, seed=seed) for seed in range(8)]
    others += [dataclasses.replace(config, name=name) for name in ("train", "valid")]
    others += [dataclasses.replace(config, batch_size=size) for size in (1, 16)]
    for other in others:
        assert arsrc.num_records(other) == len(DATA)
        _, batch = next(arsrc.iterate(other))
        np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
    now = usage(folder)
    assert now.maps == now.descriptors == NUM_FILES
    assert now.threads <= before.threads
    arsrc.close()
    assert usage(folder).maps == usage(folder).descriptors == 0


def test_metrics_are_shared_by_configs_that_differ_in_seed_or_statistics_and_not_in_name(mapped):
    config = ArrayRecordSourceConfig(mapped, 5, read=ReadOptions(ahead="never"))
    check_batch(config, arsrc.init(config))
    for same in ({"seed": 7}, {"precomputed_stats": {"mean": 1.0}}):
        assert arsrc.io_metrics(dataclasses.replace(config, **same))["batches_served"] == 1
    assert arsrc.io_metrics(dataclasses.replace(config, name="other"))["batches_served"] == 0


def test_a_function_is_called_once_for_its_first_record_by_all_configs_that_share_it(mapped):
    function = Held()
    function.go.set()
    config = ArrayRecordSourceConfig(mapped, 5, codec=Map(function, SPEC))
    for fields in ({}, {"seed": 1}, {"name": "other"}, {"batch_size": 9}, {"shuffle_files": True}):
        arsrc.init(dataclasses.replace(config, **fields))
    assert function.calls == 1
    arsrc.init(dataclasses.replace(config, exclude=[0]))  # has another first record
    assert function.calls == 2


# Opening.


def test_a_source_that_is_slow_to_open_holds_up_no_other_and_is_opened_once(folder, mapped):
    function = Held()
    slow = ArrayRecordSourceConfig(mapped, 5, codec=Map(function, SPEC))
    opening = [Thread(lambda: registry.source(dataclasses.replace(slow))) for _ in range(2)]
    assert function.begun.wait(LONG)
    for paths in (mapped, str(folder / "grouped")):
        other = ArrayRecordSourceConfig(paths, 5)
        check_batch(other, arsrc.init(other))
        arsrc.close(other)
    assert all(thread.is_alive() for thread in opening)
    function.go.set()
    first, second = (thread.result() for thread in opening)
    assert first is second
    assert function.calls == 1


def test_closing_all_leaves_a_source_that_is_being_opened_usable(mapped):
    function = Held()
    config = ArrayRecordSourceConfig(mapped, 5, codec=Map(function, SPEC))
    opening = Thread(lambda: arsrc.num_records(config))
    assert function.begun.wait(LONG)
    arsrc.close()
    function.go.set()
    assert opening.result() == len(DATA)
    check_batch(config, arsrc.init(config))


@only_linux
def test_what_was_opened_while_all_was_closed_is_closed_by_the_next(folder, mapped):
    function = Held()
    config = ArrayRecordSourceConfig(mapped, 5, codec=Map(function, SPEC))
    opening = Thread(lambda: registry.source(config).elements.read(np.arange(9, dtype=np.uint32)))
    assert function.begun.wait(LONG)
    arsrc.close()
    function.go.set()
    opening.result()
    source = registry.source(config)  # as an abandoned iterator holds it
    arsrc.close()
    with pytest.raises(arsrc.ArsrcReadError, match="closed"):
        source.elements.read(np.arange(9, dtype=np.uint32))
    assert usage(folder).maps == 0


def test_a_failure_to_open_reaches_all_who_wait_and_does_not_stick(mapped):
    function = Held()

    def failing(record: bytes) -> Any:
        element = function(record)
        if function.calls <= 2:
            raise ValueError("not yet")
        return element

    config = ArrayRecordSourceConfig(mapped, 5, codec=Map(failing, SPEC))
    opening = [Thread(lambda: arsrc.num_records(config)) for _ in range(2)]
    assert function.begun.wait(LONG)
    function.go.set()
    for thread in opening:
        with pytest.raises(arsrc.ArsrcValueError, match="not yet"):
            thread.result()
    assert arsrc.num_records(config) == len(DATA)
    assert function.calls == 3


# Closing.


@pytest.mark.parametrize("kind", ["mapped/*", "grouped"])
def test_closing_one_leaves_others_of_the_same_files_reading(folder, kind):
    one = ArrayRecordSourceConfig(f"{folder}/{kind}", 5, read=ReadOptions(ahead="always"))
    other = dataclasses.replace(one, name="other")
    states = [check_batch(config, arsrc.init(config)) for config in (one, other)]
    before = registry.source(other)
    arsrc.close(one)
    for _ in range(5):
        states[1] = check_batch(other, states[1])
    assert registry.source(other) is before
    check_batch(one, states[0])  # opens again


@pytest.mark.parametrize("kind", ["mapped/*", "grouped"])
@pytest.mark.parametrize("codec", [None, Map(slowly, SPEC)], ids=["bytes", "slow codec"])
def test_loops_read_on_whoever_closes_their_source_meanwhile(folder, kind, codec):
    fields = {} if codec is None else {"codec": codec}
    config = ArrayRecordSourceConfig(f"{folder}/{kind}", 10, **fields)
    num_steps = 10 if codec else 50
    state = arsrc.init(config)

    def scan(state: arsrc.SourceState) -> Any:
        return arsrc.scan_steps(config, state, None, lambda _, b: (None, (b.data, b.record_ids)), num_steps)[2]

    def loop() -> Any:
        batches = [batch for _, (_, batch) in zip(range(num_steps), arsrc.iterate(config, state), strict=False)]
        return jnp.stack([batch.data for batch in batches]), jnp.stack([batch.record_ids for batch in batches])

    compiled = jax.jit(scan).lower(state).compile()
    num_closed = 0
    for work in (lambda: jax.block_until_ready(compiled(state)), loop):
        running = Thread(work)
        while running.is_alive():
            arsrc.close(config if num_closed % 2 else None)
            num_closed += 1
            time.sleep(0.002)
        data, ids = map(np.asarray, running.result())
        np.testing.assert_array_equal(data, DATA[ids])
        np.testing.assert_array_equal(ids.ravel(), np.arange(10 * num_steps) % len(DATA))
    assert num_closed > 2


BEFORE_THE_END = """
import sys, threading, time
import numpy as np
import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc.codecs import Bytes, Map

folder, read = sys.argv[1], ReadOptions(ahead="always")

def read_ahead(seconds, batch_size):
    def slow_ahead(record):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(seconds)
        return np.frombuffer(record, np.uint8)

    begun = threading.Event()
    config = ArrayRecordSourceConfig(folder + "/mapped/*", batch_size, codec=Map(slow_ahead, ("uint8", 16)), read=read)
    batches = arsrc.iterate(config)
    next(batches)
    assert begun.wait(60)
    return batches
"""

THE_END = """
start = time.monotonic()
arsrc.close(*sys.argv[2:])
assert time.monotonic() - start < 5, "close took long"
"""

SITUATIONS = {
    "a slow codec with large batches": "batches = read_ahead(0.005, 1000)",
    "a codec that blocks in one call": "batches = read_ahead(20, 10)",
    "an abandoned iterator": "read_ahead(0.005, 200)",
    "array_record reading": """
config = ArrayRecordSourceConfig([folder + "/grouped"] * 800, 300_000, shuffle_records=True, read=read)
batches = arsrc.iterate(config)
next(batches)
next(batches)  # was read ahead, so that the next is begun just now
""",
}


@pytest.mark.processes
@pytest.mark.parametrize("closes", [False, True], ids=["ends", "closes"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_closing_and_a_process_s_end_wait_for_no_codec(folder, situation, closes):
    script = BEFORE_THE_END + SITUATIONS[situation] + closes * THE_END + "\nprint(time.time())"
    ended = float(run_python(script, folder))
    assert time.time() - ended < 8  # what array_record reads it may end


# Many configs.


MANY = """
import _thread, functools, gc, os, sys, threading, time
import jax, numpy as np
import arsrc
from arsrc import ArrayRecordSourceConfig, programs
from arsrc._host import registry
from arsrc._host.machine import threads
from arsrc.codecs import Bytes, Map

registry._IDLE_SECONDS, threads.IDLE_SECONDS = 0.01, 0.1
programs.program = functools.lru_cache(32)(programs.program.__wrapped__)
paths = sys.argv[1] + "/mapped/*"

def train(config):
    state = arsrc.init(config)
    for _ in range(5):
        state, batch = arsrc.next_batch(config, state)
    return jax.block_until_ready(batch.data)

def cells(first, last):
    for i in range(first, last):
        train(ArrayRecordSourceConfig(paths, 8, codec=Map(lambda record: np.frombuffer(record, np.uint8), spec)))

def names(first, last):
    for i in range(first, last):
        train(ArrayRecordSourceConfig(paths, 8, name=f"run-{i}"))
        train(ArrayRecordSourceConfig(paths, i + 1))

def seeds(first, last):
    for i in range(first, last):
        config = ArrayRecordSourceConfig(paths, 8, seed=i, shuffle_records=True)
        train(config)
        add = lambda total, batch: (total + batch.data.sum(dtype="int32"), None)
        jax.jit(lambda state: arsrc.scan_steps(config, state, 0, add, 2)[:2])(arsrc.init(config))

def usage():
    end = time.monotonic() + 20
    while True:
        time.sleep(0.05)  # a thread may be about to begin
        if not _thread._count() or time.monotonic() > end:
            break
    gc.collect()
    maps = open("/proc/self/maps").read()
    pages = int(open("/proc/self/statm").read().split()[1])
    num_sources = len(registry._registry.sources)
    return threading.active_count(), len(os.listdir("/proc/self/fd")), maps.count(paths[:-1]), num_sources, pages // 256

spec = ("uint8", 16)
for sweep, warm, last in ((cells, 33, 40), (names, 2, 6), (seeds, 5, 30)):
    sweep(0, warm)
    before = usage()
    sweep(warm, last)
    print(sweep.__name__, before, now := usage())
    assert now[0] == before[0] == 1, "threads"
    assert now[1] <= before[1] and now[2] <= before[2] and max(now[3], before[3]) <= 12
    assert now[4] < before[4] + 16, "MiB of memory"
"""


@only_linux
@pytest.mark.processes
def test_nothing_grows_with_the_number_of_configs_there_have_been(folder):
    run_python(MANY, folder)


def test_who_is_idle_gives_threads_and_memory_back_and_starts_anew(mapped, folder, monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    blocks = {"shuffle_records": True, "shuffle_block_size": 10, "shuffle_window_blocks": 4}
    plain = ArrayRecordSourceConfig(mapped, 5, read=ReadOptions(ahead="always"))
    blocked = ArrayRecordSourceConfig(folder / "grouped", 5, read=ReadOptions(ahead="always"), **blocks)
    for config, kept in ((plain, "bytes_ahead"), (blocked, "bytes_groups")):
        state = check_batch(config, arsrc.init(config))
        for _ in range(2):
            assert arsrc.io_metrics(config)[kept] > 0
            until(lambda: not any(thread.name.startswith("arsrc") for thread in threading.enumerate()))
            until(lambda kept=kept, config=config: arsrc.io_metrics(config)[kept] == 0)
            ready = arsrc.io_metrics(config)["batches_ready"]
            while arsrc.io_metrics(config)["batches_ready"] < ready + 2:
                state = check_batch(config, state)
                time.sleep(0.01)


def test_memory_is_given_back_where_nothing_is_read_ahead(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    large = tmp_path / "large"
    arsrc.write_array_record(large, np.zeros((8, 2**20), np.uint8), options="group_size:1,uncompressed")
    never = ReadOptions(ahead="never")
    blocks = {"shuffle_records": True, "shuffle_block_size": 10, "shuffle_window_blocks": 4}
    buffered = ArrayRecordSourceConfig(large, 2, read=never)
    blocked = ArrayRecordSourceConfig(folder / "grouped", 5, read=never, **blocks)
    for config, kept in ((buffered, "bytes_buffers"), (blocked, "bytes_groups")):
        for _ in range(2):
            batches = arsrc.iterate(config)
            for _ in range(3):
                next(batches)
            assert arsrc.io_metrics(config)[kept] > 0
            until(lambda kept=kept, config=config: arsrc.io_metrics(config)[kept] == 0)


@pytest.fixture
def none_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not asked for at this moment is idle, and only one idle source is kept."""
    monkeypatch.setattr(registry, "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(registry, "_MOST_IDLE", 1)


def test_idle_sources_are_closed_the_least_recently_used_first_and_open_again(mapped, none_idle):
    configs = [ArrayRecordSourceConfig(mapped, 5, name=f"{i}") for i in range(4)]
    states = [arsrc.init(config) for config in configs]
    opened = [registry._registry.sources.get(config._of_programs) is not None for config in configs]
    assert opened == [False, False, True, True] or opened == [False, False, False, True]
    for config, state in zip(configs, states, strict=True):
        check_batch(config, state)


@pytest.mark.parametrize("kind", ["mapped/*", "grouped"])
def test_a_source_that_is_retired_while_somebody_reads_goes_on(folder, none_idle, kind):
    config = ArrayRecordSourceConfig(f"{folder}/{kind}[0:50]", 10, codec=Map(slowly, SPEC), num_epochs=1)
    if kind != "grouped":
        config = dataclasses.replace(config, paths=[f"{folder}/mapped/00"])
    source = registry.source(config)

    def iterated() -> Any:
        return np.concatenate([batch.data for _, batch in arsrc.iterate(config)])

    def counted() -> Any:
        return arsrc.dataset_statistics(config).count

    reading = [Thread(work) for work in (iterated, counted, functools.partial(arsrc.load_resident, config))]
    num_others = 0
    while any(thread.is_alive() for thread in reading):
        arsrc.init(ArrayRecordSourceConfig(str(folder / "grouped"), 5, name=f"{num_others}"))
        num_others += 1
        time.sleep(0.001)
    assert num_others > 2
    assert source.is_closed
    np.testing.assert_array_equal(reading[0].result(), DATA[:50])
    assert reading[1].result() == 50
    np.testing.assert_array_equal(reading[2].result(), DATA[:50])


def test_a_compiled_step_runs_on_when_its_source_was_closed_or_retired(mapped, none_idle):
    config = ArrayRecordSourceConfig(mapped, 5)
    state = arsrc.init(config)
    step = jax.jit(functools.partial(arsrc.next_batch, config)).lower(state).compile()
    for num_others in range(3):
        for other in range(num_others):
            arsrc.init(ArrayRecordSourceConfig(mapped, 6 + other))
        state, batch = step(state)
        np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
        arsrc.close()
    assert int(state.index) == 15


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:10"])
def test_a_config_opened_after_a_file_was_replaced_shares_nothing_with_one_that_reads_the_old(
    tmp_path, write_records, options
):
    path = tmp_path / "x"
    write_records(path, [row.tobytes() for row in DATA[:100]], options)
    old = ArrayRecordSourceConfig(path, 5, read=ReadOptions(max_open_files=1))
    step = jax.jit(functools.partial(arsrc.next_batch, old))
    state, _ = step(arsrc.init(old))
    before = arsrc.num_records(old)
    write_records(tmp_path / "y", [row.tobytes()[::-1] for row in DATA[:80]], options)
    os.replace(tmp_path / "y", path)
    new = dataclasses.replace(old, seed=1, name="new")
    assert (before, arsrc.num_records(new)) == (100, 80)
    later = arsrc.init(new)
    for _ in range(3):
        state, batch = step(state)
        np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
        later, batch = arsrc.next_batch(new, later)
        np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids), ::-1])
    assert arsrc.num_records(old) == 80


# One budget.

BLOCKS = {"shuffle_records": True, "shuffle_block_size": 10, "shuffle_window_blocks": 4}
GROUP_BYTES = 100 * RECORD_BYTES + 101 * 8  # records, and where they begin


@pytest.mark.parametrize("budget", [100, 2 * GROUP_BYTES, 5000, 50_000])
def test_all_that_is_kept_for_configs_that_take_turns_stays_within_one_budget(folder, budget):
    read = ReadOptions(read_ahead_bytes=budget, ahead="always")
    many = [
        {"batch_size": 8},
        {"batch_size": 60},
        {"batch_size": 50, **BLOCKS},
        {"batch_size": 9, "name": "b", **BLOCKS},
    ]
    configs = [ArrayRecordSourceConfig(folder / "grouped", read=read, **fields) for fields in many]
    states = [arsrc.init(config) for config in configs]
    for _ in range(25):
        for number, config in enumerate(configs):
            states[number] = check_batch(config, states[number])
            metrics = arsrc.io_metrics(config)
            assert metrics["bytes_ahead"] + metrics["bytes_groups"] + metrics["bytes_buffers"] <= budget
    if budget >= 2 * GROUP_BYTES:
        assert metrics["bytes_groups"] >= GROUP_BYTES
    if budget == 50_000:
        for config in configs:
            assert arsrc.io_metrics(config)["batches_ready"] > 3


# Other systems.

NOT_LINUX = """
import os, resource, sys
import chex, jax, numpy as np
for module, name in ((resource, "RUSAGE_THREAD"), (os, "sched_getaffinity"), (os, "posix_fadvise")):
    delattr(module, name)
del os.sysconf_names["SC_AVPHYS_PAGES"]
sys.platform = "darwin"
import builtins, io, pathlib
def without_proc(function):
    def opened(file, *args, **options):
        if str(file).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "there is none", str(file))
        return function(file, *args, **options)
    return opened
builtins.open = io.open = without_proc(open)
import time
import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions

data = np.load(sys.argv[2])
for kind in ("mapped/*", "grouped"):
    config = ArrayRecordSourceConfig(sys.argv[1] + "/" + kind, 10, shuffle_records=True, num_epochs=1)
    state = arsrc.init(config)
    for _ in range(20):
        state, batch = arsrc.next_batch(config, state)
        np.testing.assert_array_equal(batch.data, data[np.asarray(batch.record_ids)])
        time.sleep(0.005)
    assert arsrc.io_metrics(config)["batches_ready"] > 5
    for state, batch in arsrc.iterate(config, state):
        np.testing.assert_array_equal(batch.data, data[np.asarray(batch.record_ids)])
    assert arsrc.is_exhausted(config, state)
    np.testing.assert_array_equal(arsrc.load_resident(config), data)
    arsrc.fingerprint(config)
arsrc.close()
"""


@only_linux
@pytest.mark.processes
def test_all_works_where_the_system_offers_less(folder, tmp_path):
    np.save(tmp_path / "data.npy", DATA)
    run_python(NOT_LINUX, folder, tmp_path / "data.npy")


FORK = """
import os, signal, sys
import numpy as np
import arsrc
from arsrc import ArrayRecordSourceConfig
from arsrc._host import registry

ids = np.arange(0, 1000, 7, dtype=np.uint32)
for kind in ("mapped/*", "grouped"):
    config = lambda **fields: ArrayRecordSourceConfig(sys.argv[1] + "/" + kind, 5, **fields)
    for name in ("a", "b"):
        next(arsrc.iterate(config(name=name)))
    expected = registry.source(config(name="a")).elements.read(ids)[0]
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            for name in ("b", "a", "c"):
                if not np.array_equal(registry.source(config(name=name)).elements.read(ids)[0], expected):
                    os._exit(3)
            arsrc.close()
            os._exit(0)
        except arsrc.ArsrcReadError as error:
            os._exit(0 if "fork" in str(error) and kind == "grouped" else 4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, kind
    assert np.array_equal(registry.source(config(name="b")).elements.read(ids)[0], expected)
"""


@pytest.mark.processes
def test_a_forked_child_opens_files_that_several_sources_share_anew(folder):
    run_python(FORK, folder)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_has_nothing_open_and_lets_go_of_nothing_of_its_parent_s(mapped):
    config = ArrayRecordSourceConfig(mapped, 5, cacheable=True)
    source = weakref.ref(registry.source(config))
    parts = [weakref.ref(part) for part in (source().files, source().elements)]
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            gc.collect()
            assert all(parent_s() is not None for parent_s in (source, *parts))
            own = registry.source(config)
            assert own is not source()
            assert own.files is not parts[0]()
            assert own.elements.cache is not parts[1]().cache
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert registry.source(config) is source()


def run_python(script: str, *args: object) -> str:
    """Run a script in a process of its own, which must end well; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", script, *map(str, args)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Loads that are told to stop.


@dataclasses.dataclass(frozen=True)
class Tolerant(Bytes):
    """A codec of a user's own that gives zeros for what it cannot read."""

    def resolve(self, first_record: bytes) -> "Tolerant":
        return self

    def element_spec(self) -> Any:
        return jax.ShapeDtypeStruct((RECORD_BYTES,), np.uint8)

    def decode(self, records: Any) -> Any:
        rows = np.zeros((len(records), RECORD_BYTES), np.uint8)
        for row in range(len(records)):
            with contextlib.suppress(Exception):
                rows[row] = np.frombuffer(records[row], np.uint8)
                time.sleep(0.0 if threading.current_thread() is threading.main_thread() else 0.001)
        return rows


def test_a_load_that_was_stopped_leaves_nothing_in_a_cache_that_others_share(mapped):
    config = ArrayRecordSourceConfig(mapped, 20, Tolerant(), cacheable=True, read=ReadOptions(ahead="always"))
    other = dataclasses.replace(config, batch_size=25)
    arsrc.init(other)
    for _ in range(3):
        batches = arsrc.iterate(config)
        for _ in range(6):
            next(batches)
        time.sleep(0.01)
        arsrc.close(config)  # in the middle of a load
    state = arsrc.init(other)
    for _ in range(len(DATA) // 25):
        state = check_batch(other, state)


def test_an_interrupt_while_closing_leaves_no_file_open(folder):
    paths = [str(folder / "mapped" / f"{file:02d}") for file in range(3)]
    go_on = threading.Event()

    def held_elsewhere(record: bytes) -> Any:
        assert threading.current_thread() is threading.main_thread() or go_on.wait(LONG)
        return pixels(record)

    for path in paths:
        config = ArrayRecordSourceConfig(path, 5, Map(held_elsewhere, SPEC), read=ReadOptions(ahead="always"))
        next(arsrc.iterate(config))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with contextlib.suppress(KeyboardInterrupt):
            arsrc.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    until(lambda: usage(folder)[:2] == (0, 0))
