"""Functions in worker processes: results as ever, and nothing left behind however a process ends."""

import collections
import dataclasses
import functools
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import process_functions as functions
import pytest
from hypothesis import given, settings

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host import registry
from arsrc._host.machine import threads
from arsrc._host.machine.stopping import Stopped
from arsrc._host.processes import pool, process, worker
from arsrc._host.records.stoppable import Stoppable
from arsrc.codecs import Map
from arsrc.codecs.decoder import ElementDecoder, decoder_of
from arsrc.codecs.element_tree import plain_template
from arsrc.record_batch import RecordBatch

pytestmark = pytest.mark.processes

NUM, BATCH = 60, 20
ROWS = np.random.default_rng(0).integers(0, 256, (NUM, functions.NUM_VALUES)).astype(np.uint8)
ROWS[:, :2] = np.arange(NUM, dtype="<u2")[:, None].view(np.uint8)
SPECS = [
    (functions.values, np.zeros(functions.NUM_VALUES, np.int32)),
    (functions.tree, functions.tree(ROWS[0].tobytes()) | {"length": np.int64(0), "is": np.bool_(True)}),
    (functions.ordered, functions.ordered(ROWS[0].tobytes())),
    (functions.wrapped, np.zeros(2, np.uint8)),
]
ALONE = ReadOptions(read_ahead_bytes=0)
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes") / "records"
    arsrc.write_array_record(path, ROWS, options="group_size:1,uncompressed")
    return path


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    arsrc.close()
    wait_until(lambda: not workers_of(os.getpid()))


def workers_of(parent: int) -> list[int]:
    """Ids of the worker processes of a process, also of those that have ended and were not waited for."""
    lines = subprocess.run(["ps", "-axwwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(None, 2) for line in lines.splitlines()]
    mine = [(int(pid), args) for pid, ppid, args in found if int(ppid) == parent]
    return [pid for pid, args in mine if "worker.py" in args or "defunct" in args]


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def config_of(
    path: Path, fn: Any, spec: Any = "int32", num_processes: int = 2, **fields: Any
) -> ArrayRecordSourceConfig:
    return ArrayRecordSourceConfig(path, BATCH, codec=Map(fn, spec, num_processes=num_processes), **fields)


def acting(actions: dict[int, str]) -> Any:
    return functools.partial(functions.act, frozenset(actions.items()))


def taken(config: ArrayRecordSourceConfig, *record_ids: int) -> np.ndarray:
    """What some records are decoded to, read as by `init` and what follows, but for JAX."""
    (leaf,) = registry.source(config).elements.read(np.array(record_ids, np.uint32))
    return leaf


def process_ids(config: ArrayRecordSourceConfig) -> set[int]:
    """The processes in which the records of some batches were decoded."""
    return {int(pid) for _ in range(4) for pid in taken(config, *range(BATCH))}


def batches(config: ArrayRecordSourceConfig, num_batches: int) -> list[Any]:
    iterator = arsrc.iterate(config)
    return [next(iterator)[1] for _ in range(num_batches)]


# What comes out.


@pytest.fixture(scope="module")
def decoders() -> Iterator[list[list[ElementDecoder]]]:
    made = [[ElementDecoder(Map(*spec, num_processes=number)) for number in (0, 2)] for spec in SPECS]
    yield made
    for _, decoder in made:
        decoder.rest()


def test_random_batches_are_decoded_as_without_processes(decoders: list[list[ElementDecoder]]) -> None:
    @given(st.lists(st.binary(min_size=functions.NUM_VALUES, max_size=5000), min_size=1, max_size=50))
    @settings(max_examples=15)
    def check(records: list[bytes]) -> None:
        batch = RecordBatch.from_records(records)
        for each in decoders:
            expected, found = (decoder.decode(batch) for decoder in each)
            for one, other in zip(expected, found, strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)

    check()
    pids = workers_of(os.getpid())
    assert len(pids) == 2 * len(SPECS)
    for _, decoder in decoders:
        decoder.rest()


def test_several_threads_share_the_processes() -> None:
    decoder = ElementDecoder(Map(*SPECS[0], num_processes=2))
    generator = np.random.default_rng(1)
    all_rows = [generator.integers(0, 256, (size, 6)).astype(np.uint8) for size in range(1, 60)]

    def decode(rows: np.ndarray) -> np.ndarray:
        return decoder.decode(RecordBatch.from_records([row.tobytes() for row in rows]))[0]

    with ThreadPoolExecutor(6) as executor:
        for rows, found in zip(all_rows, executor.map(decode, all_rows), strict=True):
            np.testing.assert_array_equal(found, rows[:, ::-1].astype(np.int32) * 3)
    assert len(workers_of(os.getpid())) <= 2
    decoder.rest()


def test_a_batch_is_split_among_processes_that_import_neither_the_package_nor_jax(path: Path) -> None:
    config = config_of(path, functions.process_id, "int64", 2, read=ALONE)
    found = {int(pid) for batch in batches(config, 6) for pid in np.asarray(batch.data)}
    assert found == set(workers_of(os.getpid()))
    assert len(found) == 2
    assert not np.asarray(batches(config_of(path, functions.has_package, "bool", read=ALONE), 1)[0].data).any()


def test_loops_over_epochs_bring_what_they_bring_without_processes(path: Path) -> None:
    config = config_of(path, *SPECS[0], shuffle_records=True, num_epochs=2)
    for _, batch in (found := list(arsrc.iterate(config))):
        np.testing.assert_array_equal(batch.data, ROWS[np.asarray(batch.record_ids), ::-1].astype(np.int32) * 3)
    assert len(found) == 6

    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
        return carry + batch.data.sum(), batch.data

    _, total, outputs = arsrc.scan_steps(config, arsrc.init(config), jnp.int32(0), body, 6)
    np.testing.assert_array_equal(outputs, np.stack([batch.data for _, batch in found]))
    assert total == 2 * 3 * ROWS.astype(int).sum()


def test_codecs_that_differ_in_processes_alone_are_one_source_and_the_last_begun_counts(path: Path) -> None:
    plain, two, one = (config_of(path, functions.process_id, "int64", n, read=ALONE) for n in (0, 2, 1))
    assert plain == two
    assert hash(plain) == hash(two)
    assert plain.codec.cache_key() == two.codec.cache_key()  # type: ignore[attr-defined]
    assert arsrc.fingerprint(plain) == arsrc.fingerprint(two)
    here = {os.getpid()}
    for config, is_here in ((plain, True), (two, False), (plain, True), (one, False)):
        found = process_ids(config)
        assert (found == here) is is_here
    other = dataclasses.replace(plain, batch_size=7)  # shares what decodes, but for that
    taken(one, 0)
    assert process_ids(other) == here
    source = registry.source(one)
    before = set(workers_of(os.getpid()))
    process_ids(other)
    assert {int(pid) for pid in source.elements.read(np.arange(60, dtype=np.uint32))[0]} <= before
    assert source.groups[0].decoded is registry.source(other).groups[0].decoded


def test_a_codec_with_processes_is_copied_pickled_and_shown() -> None:
    codec = Map(functions.values, ("int32", 6), num_processes=np.int64(3))  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(codec)).num_processes == codec.num_processes == 3
    assert "num_processes=3" in repr(codec)


# What goes wrong in the function.


def test_errors_are_those_without_processes(path: Path) -> None:
    kinds = ["raise", "memory", "dtype", "shape", "tree"]
    config = config_of(path, acting(dict(zip(range(31, 36), kinds, strict=True))), num_processes=1)
    plain = dataclasses.replace(config, codec=dataclasses.replace(config.codec, num_processes=0))  # type: ignore[type-var]
    for number, kind in enumerate(kinds, 31):
        texts, causes = [], []
        for one in (plain, config):
            with pytest.raises(arsrc.ArsrcValueError) as caught:
                taken(one, 3, number, 2)
            assert caught.value.record_id == number
            assert caught.value.__cause__ is not None
            texts.append(str(caught.value))
            causes.append(repr(caught.value.__cause__.__cause__))
        assert texts[0] == texts[1]
        assert causes[0] == causes[1]
        assert f"record {number} (record {number} of" in texts[0]
        is_raised = re.search(r"File .*process_functions.py\", line \d+, in act\n    raise ", texts[1])
        assert bool(is_raised) is (kind in ("raise", "memory"))


def test_the_error_is_that_of_the_first_bad_record_and_exit_is_one_too(path: Path) -> None:
    config = config_of(path, acting({33: "leave", 34: "raise", 39: "leave"}), num_processes=3)
    for _ in range(3):
        with pytest.raises(arsrc.ArsrcValueError, match=r"record 33 .* raised SystemExit: enough"):
            taken(config, *range(20, 40))


def test_a_process_that_ends_is_the_error_of_its_record_and_the_source_goes_on(path: Path) -> None:
    config = config_of(path, acting({33: "exit", 34: "kill", 35: "crash"}))
    for number, how in ((33, "with exit code 3"), (34, "by SIGKILL"), (35, "by SIGSEGV"), (33, "with exit code 3")):
        others = [*range(20, 30), number, *range(40, 50)]
        with pytest.raises(
            arsrc.ArsrcValueError, match=f"record {number} .* worker process that decoded it ended, {how}"
        ):
            taken(config, *others)
        np.testing.assert_array_equal(taken(config, *range(20)), np.arange(20))


@pytest.mark.parametrize("action", ["raise", "kill"])
def test_records_over_which_processes_end_are_masked(path: Path, action: str) -> None:
    bad = {21, 22, 39, 50}
    config = config_of(path, acting(dict.fromkeys(bad, action)), on_bad_record="mask", num_epochs=2)
    found = []
    for _, batch in arsrc.iterate(config):
        mask = np.asarray(batch.mask)
        assert not np.asarray(batch.data)[~mask].any()
        np.testing.assert_array_equal(np.asarray(batch.data)[mask], np.asarray(batch.record_ids)[mask])
        found += np.asarray(batch.data)[mask].tolist()
    assert sorted(found) == sorted(2 * [*set(range(NUM)) - bad])
    assert set(arsrc.bad_records(config).ids) == bad


def test_a_process_that_ends_once_is_an_error_once(path: Path, tmp_path: Path) -> None:
    config = config_of(path, functools.partial(functions.die_once, str(tmp_path / "died")))
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 27 .* with exit code 1"):
        taken(config, *range(20, 40))
    np.testing.assert_array_equal(taken(config, *range(20, 40)), np.arange(20, 40))


def test_processes_that_are_killed_while_they_wait_are_begun_anew_without_an_error(path: Path) -> None:
    config = config_of(path, functions.process_id, "int64", read=ALONE)
    process_ids(config)
    for pid in (before := workers_of(os.getpid())):
        os.kill(pid, signal.SIGKILL)
    found = process_ids(config)
    assert found
    assert not found & set(before)


# The first record, of which shapes are taken.


@pytest.mark.parametrize("spec", ["int32", None])
def test_no_record_is_decoded_in_the_program_itself(path: Path, spec: Any) -> None:
    config = config_of(path, functools.partial(functions.elsewhere, os.getpid()), spec)
    np.testing.assert_array_equal(taken(config, *range(40)), np.arange(40))


FIRST = """
    import functools, sys
    import arsrc, process_functions
    from arsrc.codecs import Map

    for spec in ("int32", None):
        codec = Map(functools.partial(process_functions.act, frozenset({(0, "kill")})), spec, num_processes=2)
        masks = arsrc.ArrayRecordSourceConfig(sys.argv[1], 4, codec=codec, on_bad_record="mask")
        batch = next(arsrc.iterate(masks))[1]
        print(batch.data.tolist(), batch.mask.tolist(), arsrc.bad_records(masks).ids)
        try:
            arsrc.init(arsrc.ArrayRecordSourceConfig(sys.argv[1], 4, codec=codec))
        except arsrc.ArsrcValueError as error:
            print(error.record_id, error.what)
"""


def test_a_first_record_over_which_processes_end_is_an_error_or_a_masked_row(path: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(FIRST))
    done = run(tmp_path, "script.py", path)
    error = "0 the worker process that decoded it ended, by SIGKILL"
    lines = 2 * ["[0, 1, 2, 3] [False, True, True, True] (0,)", error]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stderr


def test_specs_that_processes_find_are_those_that_are_found_without() -> None:
    record = ROWS[3].tobytes()
    for fn in (functions.tree, functions.ordered, functions.wrapped, functions.number, functions.not_picklable):
        plain, found = (decoder_of(Map(fn, num_processes=number), record) for number in (0, 1))
        assert found.codec == plain.codec
        assert found.codec.element_spec() == plain.codec.element_spec()


@pytest.mark.parametrize("fn", [acting({0: "raise"}), functions.jax_array, functions.text, functions.nothing])
def test_errors_without_a_spec_are_those_without_processes(path: Path, fn: Any) -> None:
    texts = []
    for number in (0, 2):
        with pytest.raises(arsrc.ArsrcValueError) as caught:
            arsrc.init(config_of(path, fn, None, number))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("spec", ["int32", None])
def test_an_interrupt_while_the_first_record_is_decoded_leaves_nothing_behind(path: Path, spec: Any) -> None:
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        arsrc.init(config_of(path, acting({0: "sleep"}), spec))
    wait_until(lambda: not workers_of(os.getpid()))
    del caught


def test_opening_that_fails_behind_the_first_record_leaves_nothing_behind(path: Path) -> None:
    config = config_of(path, functions.int32_number)
    small = ReadOptions(cache_bytes=10)
    for bad in (dataclasses.replace(config, batch_size=100), dataclasses.replace(config, cacheable=True, read=small)):
        with pytest.raises(arsrc.ArsrcValueError) as caught:
            arsrc.init(bad)
        wait_until(lambda: not workers_of(os.getpid()))
        del caught


# How they begin and end.


def test_what_a_process_cannot_do_without_is_an_error_where_the_source_is_opened(path: Path) -> None:
    def local(record: bytes) -> np.int32:
        return np.int32(1)

    for fn in (local, lambda record: np.int32(1)):
        with pytest.raises(arsrc.ArsrcTypeError, match=r"Map.num_processes: .* can be pickled .* top level"):
            arsrc.init(config_of(path, fn))
    arsrc.init(config_of(path, local, num_processes=0))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(arsrc.__file__).parent.parent), str(TESTS)])}


def run(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


SCRIPT = """
import sys
import numpy as np
import arsrc
from arsrc.codecs import Map
from process_functions import int32_number

def here(record):
    return int32_number(record)

def main():
    config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 20, codec=Map({function}, "int32", num_processes=2))
    print(np.asarray(arsrc.next_batch(config, arsrc.init(config))[1].data).tolist())

{guard}main()
"""
GUARD = 'if __name__ == "__main__": '


@pytest.mark.parametrize(("function", "guard"), [("here", GUARD), ("int32_number", "")])
def test_a_script_needs_a_guard_only_where_the_function_is_its_own(
    path: Path, tmp_path: Path, function: str, guard: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(function=function, guard=guard))
    done = run(tmp_path, "script.py", path)
    assert (done.returncode, done.stdout) == (0, f"{list(range(20))}\n"), done.stderr


def test_a_script_without_the_guard_that_it_needs_is_an_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(function="here", guard=""))
    done = run(tmp_path, "script.py", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Map.num_processes: a worker process cannot start" in done.stderr
    assert "begins to read there too" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr


def test_a_function_that_is_typed_in_is_an_error(path: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "-c", SCRIPT.format(function="here", guard=""), path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"a worker process cannot start \(AttributeError: .* attribute 'here'", done.stderr)
    assert "put it into a module" in done.stderr


def test_a_start_that_fails_is_an_error_and_the_next_one_may_succeed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(path, functions.number, "int64", read=ALONE)
    with monkeypatch.context() as patch:
        patch.setattr(process.multiprocessing.spawn, "get_executable", lambda: "/nowhere/python")
        with pytest.raises(arsrc.ArsrcValueError, match=r"Map.num_processes: a worker process cannot be started"):
            batches(config, 1)
        patch.setattr(process.multiprocessing.spawn, "get_executable", lambda: "/bin/false")
        with pytest.raises(arsrc.ArsrcValueError, match=r"a worker process ended while it started, with exit code 1"):
            batches(config, 1)
    np.testing.assert_array_equal(batches(config, 1)[0].data, np.arange(20))


def test_a_stop_ends_the_wait_and_a_process_that_goes_on_is_replaced() -> None:
    decoder = ElementDecoder(Map(acting({3: "sleep"}), "int32", num_processes=1))
    records, stops = [row.tobytes() for row in ROWS], threading.Event()
    batch = RecordBatch.from_records(records[:10])
    decoder.decode(RecordBatch.from_records(records[5:10]))
    (before,) = workers_of(os.getpid())
    timer = threading.Timer(0.3, stops.set)
    timer.start()
    with pytest.raises(Stopped):
        decoder.decode(Stoppable(batch.data, batch.offsets, stops.is_set))
    np.testing.assert_array_equal(decoder.decode(RecordBatch.from_records(records[5:9]))[0], np.arange(5, 9))
    assert before not in workers_of(os.getpid())
    decoder.rest()


def test_closing_ends_processes_whatever_they_do(path: Path) -> None:
    config = config_of(path, acting({45: "sleep", 55: "sleep"}), read=ReadOptions(ahead="always"))
    iterator = arsrc.iterate(config)
    np.testing.assert_array_equal(next(iterator)[1].data, np.arange(20))
    next(iterator)
    arsrc.close(config)
    wait_until(lambda: not workers_of(os.getpid()))


def test_processes_end_with_the_last_that_uses_them(path: Path) -> None:
    decoder = ElementDecoder(Map(functions.values, ("int32", 6), num_processes=2))
    decoder.decode(RecordBatch.from_records([row.tobytes() for row in ROWS]))
    assert workers_of(os.getpid())
    del decoder
    wait_until(lambda: not workers_of(os.getpid()))


def test_one_of_two_sources_may_close_while_the_other_reads(path: Path) -> None:
    config = config_of(path, functions.process_id, "int64", read=ALONE)
    other = dataclasses.replace(config, batch_size=6)
    before = process_ids(config) | process_ids(other)
    arsrc.close(other)
    assert process_ids(config) <= before


READS_ON = """
    import sys, time
    import arsrc, process_functions
    from arsrc.codecs import Map

    codec = Map(process_functions.process_id, "int64", num_processes=2)
    config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 20, codec=codec)
    for _, batch in arsrc.iterate(config):
        print(*sorted(set(batch.data.tolist())), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_parent_that_is_killed_leaves_nothing_behind(path: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(READS_ON))
    (tmp_path / "tmp").mkdir()
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    parent = subprocess.Popen(
        [sys.executable, "script.py", str(path)],
        cwd=tmp_path,
        env=environment() | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pids = {int(pid) for _ in range(6) for pid in parent.stdout.readline().split()}
    assert pids
    assert all(map(is_running, pids))
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        os.kill(parent.pid, number)
    _, errors = parent.communicate(timeout=20)
    wait_until(lambda: not any(map(is_running, pids)))
    assert parent.returncode != 0
    assert not os.listdir(tmp_path / "tmp")
    assert not os.path.isdir("/dev/shm") or set(os.listdir("/dev/shm")) <= shared
    assert errors.count("Traceback") == (number == signal.SIGINT), errors  # its own, and none of a worker


FORKS = """
import os, sys
import numpy as np
import process_functions
from arsrc.codecs import Map
from arsrc.codecs.decoder import ElementDecoder, decoder_of
from arsrc.codecs.element_tree import plain_template
from arsrc.record_batch import RecordBatch

decoder = ElementDecoder(Map(process_functions.process_id, "int64", num_processes=2))
batch = RecordBatch.from_records([bytes(6)] * 8)
before = set(decoder.decode(batch)[0].tolist())
if (child := os.fork()) == 0:
    assert set(decoder.decode(batch)[0].tolist()) == {os.getpid()}
    decoder.rest()
    for spec in ("int64", None):
        first = decoder_of(Map(process_functions.process_id, spec, num_processes=2), bytes(6))
        assert set(first.decode(batch)[0].tolist()) == {os.getpid()}
    sys.exit(7)  # with all that is done at the end of a program
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert set(decoder.decode(batch)[0].tolist()) <= before
assert os.getpid() not in before
"""


def test_a_forked_child_decodes_by_itself_and_leaves_the_processes_to_its_parent(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", FORKS)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_while_it_waits_leaves_all_usable(path: Path) -> None:
    config = config_of(path, functions.process_id, "int64")
    taken(config, 0)

    def wait() -> None:
        while True:
            taken(config, *range(NUM))

    for _ in range(5):
        timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            wait()
        timer.join()
        assert os.getpid() not in process_ids(config)
    assert len(workers_of(os.getpid())) <= 2


def test_memory_that_nobody_uses_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    decoder = ElementDecoder(Map(functions.values, ("int32", 6), num_processes=1))
    records = RecordBatch.from_records([bytes(1_000_000)] * 8)
    expected = decoder.decode(records)[0]
    assert decoder._processes is not None
    (one,) = decoder._processes._idle
    assert one._memory is not None
    assert os.fstat(one._memory).st_size > 2_000_000
    wait_until(lambda: os.fstat(one._memory or 0).st_size < 100_000)
    (before,) = workers_of(os.getpid())
    np.testing.assert_array_equal(decoder.decode(records)[0], expected)
    assert workers_of(os.getpid()) == [before]
    decoder.rest()


@pytest.mark.parametrize(
    ("num_rows", "row_seconds", "num_tasks"),
    [(256, math.inf, 16), (256, 1e-3, 16), (256, 1e-4, 5), (256, 1e-6, 4), (3, 1e-6, 3), (3, 1.0, 3), (1, math.inf, 1)],
)
def test_a_batch_is_split_in_more_tasks_where_they_are_long(num_rows: int, row_seconds: float, num_tasks: int) -> None:
    assert pool._num_tasks(num_rows, 4, row_seconds) == num_tasks


def test_trees_are_told_from_others_as_jax_does() -> None:
    trees = [
        *({"a": 1, "b": 2}, {"a": 1}, {"a": 1, "c": 2}, collections.OrderedDict(a=1, b=2), [1, 2], (1, 2), (1, 2, 3)),
        *(functions.Pair(1, 2), functions.Pair(1, [2]), {"a": [1, (2, None)]}, {"a": [1, (None, 2)]}, 1, None, [], {}),
        *({"b": 2, "a": 1}, {"a": {"b": 1}, "b": 2}, [None, 1, 2], [[1], [2]]),
    ]
    num_alike = 0
    for tree in trees:
        template = plain_template(jax.tree.structure(tree))
        if isinstance(tree, collections.OrderedDict):
            assert template is None
            continue
        for other in trees:
            leaves, structure = jax.tree.flatten(other)
            found = [None] * jax.tree.structure(tree).num_leaves
            is_alike = worker.place(template, other, found)
            assert is_alike is (structure == jax.tree.structure(tree))
            assert not is_alike or found == leaves
            num_alike += is_alike
    assert num_alike == len(trees) - 1 + 2  # two are equal, but for the order of their keys
