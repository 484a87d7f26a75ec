"""The host side under load: descriptors, threads, read-ahead, caches, forks, spawned processes, exits."""

import contextlib
import dataclasses
import functools
import gc
import itertools
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host import registry
from arsrc.codecs import Bytes, Map, Ragged

# How records are read: copied from a map, decoded from it one by one or in groups, by array_record's reader.
KINDS = {
    "mapped": "group_size:1,uncompressed",
    "compressed": "group_size:1",
    "grouped": "group_size:10",
    "by reader": "group_size:1,brotli",
}
NUM_FILES = 6
FILE_SIZE = 50
NUM_RECORDS = NUM_FILES * FILE_SIZE
RECORD_BYTES = 40
BATCH_SIZE = 5
BATCH_BYTES = BATCH_SIZE * RECORD_BYTES

DATA = np.random.default_rng(0).integers(0, 256, (NUM_RECORDS, RECORD_BYTES), dtype=np.uint8)

MakeConfig = Callable[..., ArrayRecordSourceConfig]

only_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for kind, options in KINDS.items():
        (folder / kind).mkdir()
        for file in range(NUM_FILES):
            rows = DATA[file * FILE_SIZE : (file + 1) * FILE_SIZE]
            write_records(folder / kind / f"{file}", [row.tobytes() for row in rows], options)
    return folder


@pytest.fixture
def make_config(folder: Path, request: pytest.FixtureRequest) -> Iterator[MakeConfig]:
    """Configs that no other test uses, so that what is counted is what this test did; closed at its end."""
    made = []

    def make(kind: str = "mapped", **fields: Any) -> ArrayRecordSourceConfig:
        defaults = {"paths": f"{folder}/{kind}/*", "batch_size": BATCH_SIZE, "name": request.node.name}
        made.append(ArrayRecordSourceConfig(**(defaults | fields)))
        return made[-1]

    yield make
    for config in made:
        arsrc.close(config)


def read_ids(config: ArrayRecordSourceConfig, ids: Any) -> np.ndarray:
    """Read without JAX, as a callback does."""
    return registry.source(config).elements.read(np.asarray(ids, np.uint32))[0]


def in_threads(num_threads: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in threads that start together; raise what one of them raises."""
    barrier = threading.Barrier(num_threads)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def settled(config: ArrayRecordSourceConfig) -> dict[str, float]:
    """The metrics once nothing is being read ahead any more."""
    last = arsrc.io_metrics(config)
    while True:
        time.sleep(0.05)
        now = arsrc.io_metrics(config)
        if now == last:
            return now
        last = now


# Readers.


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_read_random_records_correctly_with_fewer_open_files_than_there_are(make_config, kind):
    config = make_config(kind, read=ReadOptions(max_open_files=2))
    read_ids(config, [0])

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(25):
            ids = rng.integers(0, NUM_RECORDS, rng.integers(1, 64))
            np.testing.assert_array_equal(read_ids(config, ids), DATA[ids])

    in_threads(8, work)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_open_a_source_at_once_share_one(make_config, kind):
    config = make_config(kind)
    sources = []

    def work(number: int) -> None:
        del number
        sources.append(registry.source(dataclasses.replace(config)))

    in_threads(8, work)
    assert len({id(source) for source in sources}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_is_listed_twice_is_read_twice(make_config, folder, kind):
    paths = [str(folder / kind / name) for name in ("1", "0", "1")]
    config = make_config(paths=[*paths, f"{paths[0]}[3:5]"])
    ids = np.concatenate([np.arange(50, 100), np.arange(50), np.arange(50, 100), [53, 54]])
    assert arsrc.num_records(config) == 152
    np.testing.assert_array_equal(read_ids(config, np.arange(152)), DATA[ids])


def test_files_of_all_kinds_make_one_data_set(make_config, folder):
    config = make_config(paths=[str(folder / kind / str(file)) for file in range(3) for kind in KINDS])
    rows = np.concatenate([np.arange(50 * file, 50 * file + 50) for file in range(3) for _ in KINDS])
    ids = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(read_ids(config, ids), DATA[rows[ids]])


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_and_unsorted_ids_come_as_asked_for(make_config, kind):
    config = make_config(kind)
    ids = [299, 0, 0, 123, 299, 50, 49, 51]
    np.testing.assert_array_equal(read_ids(config, ids), DATA[ids])


def open_descriptors(folder: Path) -> int:
    """Descriptors of this process that belong to the test's files."""
    gc.collect()
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(link.startswith(str(folder)) for link in links)


@only_linux
@pytest.mark.parametrize("kind", KINDS)
def test_no_more_files_are_open_than_the_options_allow_and_none_after_close(make_config, folder, kind):
    config = make_config(kind, read=ReadOptions(max_open_files=3))
    read_ids(config, np.arange(NUM_RECORDS))
    assert kind != "by reader" or 0 < open_descriptors(folder / kind) <= 3
    arsrc.close(config)
    assert open_descriptors(folder / kind) == 0
    assert str(folder / kind) not in Path("/proc/self/maps").read_text()


MANY_SHARDS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np
import arsrc
from arsrc._host import registry

folder, num_files, num_shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for kind in sys.argv[4:]:
    paths = [f"{folder}/{kind}/{shard:05d}" for shard in range(num_shards)]
    config = arsrc.ArrayRecordSourceConfig(paths, 7)
    ids = np.random.default_rng(0).permutation(num_shards).astype(np.uint32)
    for some in np.array_split(ids, 10):
        rows = registry.source(config).elements.read(some)[0]
        assert (rows[:, 0] == some % num_files).all(), kind
        assert len(os.listdir("/proc/self/fd")) < 60, kind
    state, batch = arsrc.next_batch(config, arsrc.init(config))
    assert batch.data[:, 0].tolist() == [i % num_files for i in range(7)], kind
    assert arsrc.fingerprint(config).startswith(f"{num_shards} records")
    next(arsrc.iterate(config, state))
    arsrc.close(config)
print("done")
"""


def link_shards(folder: Path, kind: str, num_shards: int, write_records: Any) -> int:
    """Give a few files of one record each many names; returns how many files there are."""
    (folder / kind).mkdir()
    files = [write_records(folder / kind / f"file-{i}", [bytes([i])], KINDS[kind]) for i in range(20)]
    for shard in range(num_shards):
        os.link(files[shard % 20], folder / kind / f"{shard:05d}")
    return len(files)


def run_python(script: str, *args: object, timeout: float = 120) -> str:
    """Run a script in a process of its own, which must end by itself and well; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, args)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    return done.stdout


@only_linux
@pytest.mark.processes
def test_two_thousand_shards_are_read_with_sixty_four_descriptors(tmp_path, write_records):
    for kind in ("mapped", "compressed"):
        num_files = link_shards(tmp_path, kind, 2000, write_records)
    assert "done" in run_python(MANY_SHARDS, tmp_path, num_files, 2000, "mapped", "compressed")


@only_linux
@pytest.mark.slow
@pytest.mark.processes
def test_ten_thousand_shards_are_read_with_sixty_four_descriptors(tmp_path, write_records):
    for kind in ("mapped", "compressed"):
        num_files = link_shards(tmp_path, kind, 10_000, write_records)
    assert "done" in run_python(MANY_SHARDS, tmp_path, num_files, 10_000, "mapped", "compressed", timeout=280)


# Read-ahead.


def check_batch(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> arsrc.SourceState:
    """Fetch a batch, compare it with the data, and return the next state."""
    after, batch = arsrc.next_batch(config, state)
    np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
    return after


def test_a_training_loop_finds_its_batches_ready(make_config):
    config = make_config(shuffle_records=True)
    state = arsrc.init(config)
    for _ in range(20):
        state = check_batch(config, state)
        settled(config)
    metrics = arsrc.io_metrics(config)
    assert metrics["batches_served"] == 20
    assert metrics["batches_ready"] >= 18


def test_read_ahead_starts_anew_where_the_state_jumps(make_config):
    config = make_config(shuffle_records=True)
    for step in (0, 1000, 17, 16, 2_000_000):
        state = arsrc.state_at(config, step)
        before = settled(config)
        for _ in range(6):
            state = check_batch(config, state)
            settled(config)
        assert arsrc.io_metrics(config)["batches_ready"] - before["batches_ready"] >= 4


@pytest.mark.parametrize("ahead", [10_000, 20], ids=["room for both", "room for one"])
def test_streams_that_take_turns_are_both_read_ahead_and_each_batch_is_read_once(make_config, ahead):
    read = ReadOptions(read_ahead_bytes=ahead * BATCH_BYTES)
    config = make_config(shuffle_records=True, num_epochs=1, read=read)
    states = [arsrc.init(config, jax.random.key(seed)) for seed in (1, 2)]
    num_steps = arsrc.steps_per_epoch(config)
    for step in range(num_steps):
        states = [check_batch(config, state) for state in states]
        if step % 8 == 0:
            settled(config)
    metrics = settled(config)
    assert metrics["batches_served"] == 2 * num_steps
    assert metrics["batches_ready"] >= num_steps
    assert metrics["records_read"] == 2 * NUM_RECORDS


def test_more_streams_than_can_be_kept_are_still_served_correctly(make_config):
    config = make_config(read=ReadOptions(read_ahead_bytes=4 * BATCH_BYTES))
    states = [arsrc.state_at(config, 100 * stream) for stream in range(40)]
    for _ in range(3):
        states = [check_batch(config, state) for state in states]


@pytest.mark.parametrize("num_batches", [1, 3, 10, 1000])
def test_read_ahead_stays_below_its_bytes(make_config, num_batches):
    config = make_config(shuffle_records=True, read=ReadOptions(read_ahead_bytes=num_batches * BATCH_BYTES))
    state = arsrc.init(config)
    most = 0.0
    for step in range(1, 25):
        state = check_batch(config, state)
        most = max(most, settled(config)["records_read"] - step * BATCH_SIZE)
    assert most <= num_batches * BATCH_SIZE
    if num_batches > 1:
        assert most > 0


def test_without_read_ahead_only_what_is_asked_for_is_read(make_config):
    config = make_config(shuffle_records=True, read=ReadOptions(read_ahead_bytes=0))
    state = arsrc.init(config)
    for step in range(1, 6):
        state = check_batch(config, state)
        metrics = settled(config)
        assert metrics["records_read"] == step * BATCH_SIZE
        assert metrics["bytes_read"] == step * BATCH_BYTES
        assert metrics["batches_ready"] == 0


def test_one_batch_larger_than_read_ahead_bytes_is_still_served(make_config):
    config = make_config(read=ReadOptions(read_ahead_bytes=1))
    state = arsrc.init(config)
    for _ in range(3):
        state = check_batch(config, state)


def test_read_ahead_does_not_read_beyond_the_last_epoch(make_config):
    config = make_config(num_epochs=2, batch_size=60)
    state = arsrc.init(config)
    while not arsrc.is_exhausted(config, state):
        state = check_batch(config, state)
    assert settled(config)["records_read"] == 2 * NUM_RECORDS


def slowly(record: bytes) -> Any:
    time.sleep(0.02)
    return np.frombuffer(record, np.uint8)


@pytest.mark.parametrize("num_epochs", [2, 1], ids=["with a batch behind", "the last batch"])
def test_equal_requests_of_several_threads_are_read_once(make_config, num_epochs):
    config = make_config(paths=make_config().paths[0][:-1] + "0[0:5]", codec=Map(slowly, ("uint8", RECORD_BYTES)))
    config = dataclasses.replace(config, num_epochs=num_epochs)
    state = arsrc.init(config)
    step = jax.jit(functools.partial(arsrc.next_batch, config)).lower(state).compile()

    def work(number: int) -> None:
        del number
        np.testing.assert_array_equal(np.asarray(step(state)[1].data), DATA[:5])

    in_threads(6, work)
    end = time.monotonic() + 30  # on a busy machine, what is read ahead begins late
    while arsrc.io_metrics(config)["records_read"] < 5 * num_epochs and time.monotonic() < end:
        time.sleep(0.01)
    metrics = settled(config)
    assert metrics["batches_served"] == 6
    assert metrics["records_read"] == 5 * num_epochs
    arsrc.close(config)


def test_threads_with_streams_of_their_own_get_their_own_batches(make_config):
    config = make_config(shuffle_records=True, read=ReadOptions(read_ahead_bytes=30 * BATCH_BYTES, num_threads=3))
    arsrc.next_batch(config, arsrc.init(config))

    def work(number: int) -> None:
        state = arsrc.state_at(config, 50 * number)
        for _ in range(15):
            state = check_batch(config, state)

    in_threads(6, work)


# Errors of batches that were read ahead.

BAD = 37


@pytest.fixture
def with_bad_record(make_config: MakeConfig, tmp_path: Path, write_records: Any, kind: str):
    records = [row.tobytes() for row in DATA[:100]]
    records[BAD] = b"short"
    return make_config(paths=write_records(tmp_path / "bad", records, KINDS[kind]), batch_size=4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_reaches_the_step_it_belongs_to_and_no_other(with_bad_record):
    state = arsrc.init(with_bad_record)
    failed, name = [], with_bad_record.name
    for step in range(60):
        try:
            state = jax.block_until_ready(check_batch(with_bad_record, state))
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            failed.append((step, f"[arsrc] decode ({name}): record {BAD} (record {BAD} of " in str(error)))
            state = arsrc.advance(with_bad_record, state)
        if step % 4 == 0:
            settled(with_bad_record)
    assert failed == [(9, True), (34, True), (59, True)]


@dataclasses.dataclass(frozen=True)
class FirstBytes(Bytes):
    """A codec of a user's own, which knows nothing of `RecordError`."""

    def resolve(self, first_record: bytes) -> "FirstBytes":
        return self

    def element_spec(self) -> Any:
        return jax.ShapeDtypeStruct((), np.uint8)

    def decode(self, records: Any) -> Any:
        if (records.lengths != RECORD_BYTES).any():
            raise OverflowError("a record is too short")
        return records.data[records.offsets[:-1]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_codec_of_ones_own_raises_reaches_the_step_it_belongs_to_and_no_other(with_bad_record):
    config = dataclasses.replace(with_bad_record, codec=FirstBytes(), num_epochs=1)
    batches, failed = arsrc.iterate(config), []
    state = arsrc.init(config)
    while not arsrc.is_exhausted(config, state):
        try:
            state, _ = next(batches)
        except arsrc.ArsrcValueError as error:
            failed.append((int(arsrc.step_of(config, state)), str(error).partition(": ")[2]))
            state = arsrc.advance(config, state)
            batches = arsrc.iterate(config, state)
        settled(config)
    place = f"record 37 (record 37 of {config.paths[0]!r})"
    what = f"{place}: the codec FirstBytes raised OverflowError: a record is too short"
    assert [(step, text.startswith(f"{what}. It was raised here:\n  File ")) for step, text in failed] == [(9, True)]
    assert arsrc.io_metrics(config)["background_errors"] == 0
    arsrc.close(config)


@pytest.mark.parametrize("kind", KINDS)
def test_iterate_serves_every_batch_before_the_bad_one_raises_there_and_goes_on_behind_it(with_bad_record):
    batches = arsrc.iterate(with_bad_record)
    for start in range(0, 36, 4):
        state, batch = next(batches)
        assert batch.record_ids[0] == start
        settled(with_bad_record)
    with pytest.raises(arsrc.ArsrcValueError, match=f"record {BAD} "):
        next(batches)
    behind = arsrc.iterate(with_bad_record, arsrc.advance(with_bad_record, state))
    assert next(behind)[1].record_ids.tolist() == [40, 41, 42, 43]


# Caches.


@pytest.mark.parametrize("in_files", [False, True])
def test_a_cache_filled_by_several_threads_holds_what_the_files_hold(make_config, tmp_path, in_files):
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path)) if in_files else ReadOptions()
    config = make_config(cacheable=True, read=read)
    read_ids(config, [0])

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(25):
            ids = rng.integers(0, NUM_RECORDS, 40)
            np.testing.assert_array_equal(read_ids(config, ids), DATA[ids])

    in_threads(8, work)
    read_ids(config, np.arange(NUM_RECORDS))
    before = arsrc.io_metrics(config)
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    after = arsrc.io_metrics(config)
    assert after["records_read"] == before["records_read"]
    assert after["cache_hits"] - before["cache_hits"] == NUM_RECORDS
    assert after["records_read"] + after["cache_hits"] == 1 + 8 * 25 * 40 + 2 * NUM_RECORDS


def test_the_second_epoch_of_a_cached_source_reads_no_file(make_config):
    config = make_config(cacheable=True, shuffle_records=True, batch_size=60, read=ReadOptions(read_ahead_bytes=0))
    for _ in itertools.islice(arsrc.iterate(config), 12):
        pass
    assert settled(config)["records_read"] == NUM_RECORDS


def test_reset_cache_makes_records_be_read_again_also_while_others_read(make_config):
    config = make_config(cacheable=True, read=ReadOptions(read_ahead_bytes=0))
    ids = np.arange(100)
    read_ids(config, ids)
    arsrc.reset_cache(config)
    read_ids(config, ids)
    assert arsrc.io_metrics(config)["records_read"] == 200

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(30):
            if number == 0:
                arsrc.reset_cache(config)
            some = rng.integers(0, NUM_RECORDS, 20)
            np.testing.assert_array_equal(read_ids(config, some), DATA[some])

    in_threads(4, work)


def test_a_cache_that_does_not_fit_is_refused_at_init_with_both_sizes(make_config):
    config = make_config(cacheable=True, read=ReadOptions(cache_bytes=NUM_RECORDS * RECORD_BYTES - 1))
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] cacheable: .*12000 bytes.*got cache_bytes=11999"):
        arsrc.init(config)
    fits = dataclasses.replace(config, read=ReadOptions(cache_bytes=NUM_RECORDS * RECORD_BYTES))
    arsrc.init(fits)
    arsrc.close(fits)


def test_a_cache_in_files_is_there_for_the_next_run(make_config, tmp_path):
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    config = make_config(cacheable=True, read=read)
    read_ids(config, np.arange(200))
    arsrc.close(config)
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    metrics = arsrc.io_metrics(config)
    assert metrics["records_read"] == 100
    assert metrics["cache_hits"] == 200
    arsrc.reset_cache(config)
    arsrc.close(config)
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    assert arsrc.io_metrics(config)["records_read"] == NUM_RECORDS


def test_caches_in_files_of_other_data_and_other_codecs_do_not_mix(make_config, tmp_path, folder):
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    config = make_config(cacheable=True, read=read)
    read_ids(config, np.arange(NUM_RECORDS))
    arsrc.close(config)
    ragged = dataclasses.replace(config, codec=Ragged(max_length=RECORD_BYTES))
    longer = dataclasses.replace(config, codec=Ragged(max_length=RECORD_BYTES + 1))
    other = dataclasses.replace(config, paths=[str(folder / "mapped" / str(i)) for i in reversed(range(NUM_FILES))])
    for changed in (ragged, longer, other):
        arsrc.init(changed)
        assert arsrc.io_metrics(changed)["cache_hits"] == 0
        registry.source(changed).elements.read(np.arange(NUM_RECORDS, dtype=np.uint32))
        assert arsrc.io_metrics(changed)["records_read"] == NUM_RECORDS
        arsrc.close(changed)
    reordered = DATA.reshape(NUM_FILES, FILE_SIZE, -1)[::-1].reshape(DATA.shape)
    np.testing.assert_array_equal(read_ids(other, np.arange(NUM_RECORDS)), reordered)
    arsrc.close(other)


def test_a_cache_in_files_does_not_outlive_the_data_it_was_made_of(make_config, tmp_path, write_records):
    records = np.random.default_rng(2).integers(0, 256, (2000, 1000), dtype=np.uint8)
    path = tmp_path / "data"
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path / "cache"))
    config = make_config(paths=str(path), cacheable=True, read=read)
    for changed in (0, 700, 1501):
        records[changed] ^= 1  # one of many: no sample of the data need see it
        write_records(path, [row.tobytes() for row in records], KINDS["mapped"])
        np.testing.assert_array_equal(read_ids(config, np.arange(2000)), records)
        arsrc.close(config)


def test_new_data_of_the_same_size_and_time_is_seen(make_config, tmp_path, write_records):
    records = np.random.default_rng(2).integers(0, 256, (2000, 1000), dtype=np.uint8)
    path = tmp_path / "data"
    config = make_config(paths=str(path), cacheable=True, read=ReadOptions(cache_bytes=0, cache_dir=tmp_path / "cache"))
    for is_open in (False, True, True):
        times = os.stat(path) if path.exists() else None
        records[700] ^= 1  # one of many: no sample of the data need see it
        written = write_records(tmp_path / "new", [row.tobytes() for row in records], KINDS["mapped"])
        path.write_bytes(Path(written).read_bytes())  # in place: the inode stays too
        if times is not None:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        np.testing.assert_array_equal(read_ids(config, np.arange(2000)), records)
        if not is_open:
            arsrc.close(config)


def scaled(by: int) -> Callable[[bytes], Any]:
    return lambda record: np.float32(record[0] * by)


def scaled_by_table(by: int) -> Callable[[bytes], Any]:
    tables = {"table": np.arange(3_000) * by, "middle": 1_500}
    return lambda record: np.float32(record[0] * tables["table"][tables["middle"]] / tables["middle"])


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Multiplies; other classes of this name do so otherwise."""

    by: int

    def __call__(self, record: bytes) -> Any:
        return np.float32(record[0] * self.by)


def scaled_by_a_class(by: int) -> Callable[[bytes], Any]:
    if by == 2:
        return Scaled(2)

    class Other(Scaled):
        def __call__(self, record: bytes) -> Any:
            return np.float32(record[0] * (self.by + 1))

    Other.__qualname__, Other.__name__ = Scaled.__qualname__, Scaled.__name__
    return Other(2)


def scaled_inside(which: int) -> Callable[[bytes], Any]:
    functions = [
        lambda record: np.float32(sum(byte * 2 for byte in record[:1])),
        lambda record: np.float32(sum(byte * 3 for byte in record[:1])),
    ]
    for function in functions:
        function.__qualname__ = "same"
    return functions[which]


def scaled_by_default(by: int) -> Callable[[bytes], Any]:
    def function(record: bytes, by: int = by) -> Any:
        return np.float32(record[0] * by)

    return function


@pytest.mark.parametrize(
    "functions",
    [
        (scaled(2), scaled(3)),
        (scaled_inside(0), scaled_inside(1)),
        (scaled_by_table(2), scaled_by_table(3)),
        (scaled_by_a_class(2), scaled_by_a_class(3)),
        (scaled_by_default(2), scaled_by_default(3)),
        (functools.partial(scaled_by_default(1), by=2), functools.partial(scaled_by_default(1), by=3)),
    ],
    ids=["closures", "inner code", "large arrays", "methods", "defaults", "partials"],
)
def test_functions_that_give_other_elements_have_caches_in_files_of_their_own(make_config, tmp_path, functions):
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    for function, by in zip(functions, (2, 3), strict=True):
        config = make_config(cacheable=True, read=read, codec=Map(function, "float32"))
        np.testing.assert_array_equal(read_ids(config, np.arange(9)), DATA[:9, 0].astype(np.float32) * by)
        arsrc.close(config)


def shorten(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize("harm", [os.remove, shorten], ids=["removed", "shortened"])
@pytest.mark.parametrize("name", ["rows", "places", "elements.json"])
def test_a_cache_in_files_that_lost_a_file_is_filled_anew(make_config, tmp_path, harm, name):
    config = make_config(cacheable=True, read=ReadOptions(cache_bytes=0, cache_dir=str(tmp_path)))
    read_ids(config, np.arange(NUM_RECORDS))
    arsrc.close(config)
    (damaged,) = tmp_path.glob(f"*/{name}")
    harm(damaged)
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    arsrc.close(config)
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    assert arsrc.io_metrics(config)["records_read"] == 0


SHARED_CACHE = """
import sys, time
import numpy as np, arsrc
from arsrc._host import registry

read = arsrc.ReadOptions(cache_bytes=0, cache_dir=sys.argv[2])
config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 5, cacheable=True, read=read)
plain = registry.source(arsrc.ArrayRecordSourceConfig(sys.argv[1], 5)).elements
expected = plain.read(np.arange(300, dtype=np.uint32))[0]
time.sleep(max(0, float(sys.argv[3]) - time.time()))
rng = np.random.default_rng(int(sys.argv[4]))
for _ in range(100):
    ids = rng.integers(0, 300, 30).astype(np.uint32)
    assert np.array_equal(registry.source(config).elements.read(ids)[0], expected[ids])
"""


@pytest.mark.processes
def test_processes_that_start_at_once_can_share_a_cache_in_files(folder, tmp_path):
    start = time.time() + 3
    work = functools.partial(run_python, SHARED_CACHE, f"{folder}/mapped/*", tmp_path, start)
    in_threads(3, lambda number: work(number) and None)


KILLED_WHILE_FILLING = """
import os, sys
import numpy as np, arsrc
from arsrc._host import registry

read = arsrc.ReadOptions(cache_bytes=0, cache_dir=sys.argv[2])
config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 5, cacheable=True, read=read)
registry.source(config).elements.read(np.arange(200, dtype=np.uint32))
sys.stdout.write("filled")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.processes
def test_what_a_process_kept_that_did_not_end_well_is_there_for_the_next(make_config, tmp_path):
    config = make_config(cacheable=True, name=None, read=ReadOptions(cache_bytes=0, cache_dir=str(tmp_path)))
    assert run_python(KILLED_WHILE_FILLING, config.paths[0], tmp_path) == "filled"
    np.testing.assert_array_equal(read_ids(config, np.arange(NUM_RECORDS)), DATA)
    assert arsrc.io_metrics(config)["records_read"] == NUM_RECORDS - 200


# Closing.


@pytest.mark.parametrize("kind", KINDS)
def test_closing_while_others_read_gives_right_records_or_a_clear_error(make_config, kind):
    config = make_config(kind)
    read_ids(config, [0])
    done = threading.Event()

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        while number and not done.is_set():
            ids = rng.integers(0, NUM_RECORDS, 20)
            try:
                np.testing.assert_array_equal(read_ids(config, ids), DATA[ids])
            except arsrc.ArsrcReadError as error:
                if "closed" not in str(error):
                    raise
        if not number:
            for _ in range(15):
                time.sleep(0.01)
                arsrc.close(config)
            done.set()

    in_threads(4, work)
    np.testing.assert_array_equal(read_ids(config, [7]), DATA[[7]])


def test_close_may_be_called_twice_and_before_anything_was_opened(make_config):
    config = make_config()
    arsrc.close(config)
    read_ids(config, [0])
    arsrc.close(config)
    arsrc.close(config)


def test_a_closed_source_opens_again_and_counts_anew(make_config):
    config = make_config(read=ReadOptions(read_ahead_bytes=0))
    state = check_batch(config, arsrc.init(config))
    arsrc.close(config)
    assert arsrc.io_metrics(config)["records_read"] == 0
    check_batch(config, state)
    assert arsrc.io_metrics(config)["records_read"] == BATCH_SIZE


def test_closing_while_reading_ahead_stops_the_threads(make_config):
    before = set(threading.enumerate())
    config = make_config(codec=Map(slowly, ("uint8", RECORD_BYTES)))
    arsrc.next_batch(config, arsrc.init(config))
    added = set(threading.enumerate()) - before
    assert any(thread.name.startswith("arsrc-read-ahead") for thread in added)
    arsrc.close(config)
    left = [thread for thread in added if thread.is_alive() and thread.name.startswith("arsrc-read-ahead")]
    assert not left


# Processes.

FORK = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")  # JAX and Python warn about forks; here only NumPy runs in the child
import numpy as np, arsrc
from arsrc._host import registry

for path in sys.argv[1:]:
    config = arsrc.ArrayRecordSourceConfig(path, 5, shuffle_records=True)
    state, batch = arsrc.next_batch(config, arsrc.init(config))  # with read-ahead under way
    ids = np.random.default_rng(0).integers(0, 300, 100).astype(np.uint32)
    expected = registry.source(config).elements.read(ids)[0]
    child = os.fork()
    if child == 0:
        try:
            found = registry.source(config).elements.read(ids)[0]
            arsrc.close(config)
            os._exit(0 if np.array_equal(found, expected) else 3)
        except arsrc.ArsrcReadError as error:  # array_record's own reader does not survive every fork
            os._exit(0 if "fork" in str(error) and "/mapped/" not in path else 4)
        except BaseException:
            os._exit(5)
    deadline = time.monotonic() + 60
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        sys.exit("the child hangs: " + path)
    assert os.waitstatus_to_exitcode(status[1]) == 0, (path, status)
    found = registry.source(config).elements.read(ids)[0]
    assert np.array_equal(found, expected)
    state, batch = arsrc.next_batch(config, state)
    assert np.array_equal(batch.data, registry.source(config).elements.read(np.asarray(batch.record_ids))[0])
print("done")
"""

FORK_WHILE_OPENING = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import numpy as np, arsrc
from arsrc._host import registry
from arsrc.codecs import Map

def slow(record):
    is_opening.set()
    time.sleep(1)
    return np.uint8(record[0])

is_opening = threading.Event()
config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 5)
ids = np.arange(0, 300, 7, dtype=np.uint32)
expected = registry.source(config).elements.read(ids)[0]
opening = arsrc.ArrayRecordSourceConfig(sys.argv[1], 5, codec=Map(slow, "uint8"))
threading.Thread(target=arsrc.num_records, args=(opening,)).start()
is_opening.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that waits for what a thread of its parent was about to do
    for batch_size in (5, 6):
        config = arsrc.ArrayRecordSourceConfig(sys.argv[1], batch_size)
        if not np.array_equal(registry.source(config).elements.read(ids)[0], expected):
            os._exit(3)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.processes
def test_a_child_forked_while_its_parent_opens_a_source_opens_its_own(folder):
    run_python(FORK_WHILE_OPENING, f"{folder}/mapped/*")


@pytest.mark.processes
def test_a_forked_child_reads_what_its_parent_reads_or_says_that_it_cannot(folder):
    assert "done" in run_python(FORK, *(f"{folder}/{kind}/*" for kind in KINDS))


@pytest.mark.processes
def test_a_spawned_process_reads_with_a_pickled_config(make_config):
    config = make_config(shuffle_records=True, codec=Map(first_bytes, ("uint8", 4)), name=None)
    state = arsrc.state_at(config, 3)
    _, batch = arsrc.next_batch(config, state)
    saved = arsrc.to_state_dict(config, state)
    config = dataclasses.replace(config, codec=Ragged(max_length=RECORD_BYTES))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(arsrc.num_records, (config,)) == NUM_RECORDS
        restored = pool.apply(arsrc.from_state_dict, (config, saved))
        assert int(restored.index) == int(state.index)
        ids = np.asarray(batch.record_ids)
        data = pool.apply(arsrc.take, (config, ids)).data
    np.testing.assert_array_equal(data["values"], DATA[ids])
    arsrc.close(config)


def first_bytes(record: bytes) -> Any:
    return np.frombuffer(record[:4], np.uint8)


BEFORE_EXIT = """
import atexit, functools, json, sys, threading, time
import jax, jax.numpy as jnp, numpy as np
import arsrc

config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 5, shuffle_records=True)
state = arsrc.init(config)

def run(num_steps):
    body = lambda total, batch: (total + batch.data.sum(dtype=jnp.uint32), None)
    scan = lambda state: arsrc.scan_steps(config, state, jnp.uint32(0), body, num_steps)[:2]
    return jax.jit(scan).lower(state).compile()
"""

EXITS = {
    "with a long scan under way in a thread": """
step = run(3000)
threading.Thread(target=lambda: print(step(state)[0].epoch)).start()
time.sleep(0.2)
""",
    "right after a scan was dispatched": """
out = run(300)(state)
""",
    "with an iterator that was left in the middle": """
batches = arsrc.iterate(config)
for _ in range(5):
    next(batches)
for _ in arsrc.iterate(config):
    break
""",
    "while batches are being read ahead": """
read = arsrc.ReadOptions(num_threads=4)
slow = lambda record: time.sleep(0.002) or np.uint8(record[0])
config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 50, arsrc.codecs.Map(slow, "uint8"), read=read)
state, _ = arsrc.next_batch(config, arsrc.init(config))
arsrc.next_batch(config, state)
""",
    "after a read that failed": """
try:
    jax.block_until_ready(jax.jit(functools.partial(arsrc.take, config))(np.uint32([4_000_000_000])))
except (jax.errors.JaxRuntimeError, ValueError) as error:
    print("caught" if "[arsrc] take: " in str(error) else error)
""",
    "in an exit hook that saves the state and reads": """
@atexit.register
def save():
    saved = json.dumps(arsrc.to_state_dict(config, state))
    fresh = arsrc.ArrayRecordSourceConfig(sys.argv[1], 7)
    batches = arsrc.next_batch(fresh, arsrc.init(fresh))[1], next(arsrc.iterate(fresh))[1]
    print(saved, *(batch.mask.sum() for batch in batches))
""",
}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("what", "kind"),
    [(what, "mapped") for what in EXITS]
    + [(what, "compressed") for what in EXITS if "scan under way" in what or "hook" in what],
)
def test_nothing_hangs_or_fails_when_the_interpreter_exits(folder, what, kind):
    printed = run_python(BEFORE_EXIT + EXITS[what], f"{folder}/{kind}/*", timeout=90)
    if "hook" in what:
        assert printed.rstrip().endswith("7 7")
    if "thread" in what:
        assert printed.strip() == str(3000 * BATCH_SIZE // NUM_RECORDS)
    if "failed" in what:
        assert printed.strip() == "caught"


# Metrics.


def test_metrics_start_at_zero_and_are_named(make_config):
    config = make_config()
    assert arsrc.io_metrics(config) == {
        "records_read": 0,
        "bytes_read": 0,
        "records_decoded": 0,
        "bytes_decoded": 0,
        "seconds_read": 0,
        "seconds_in_codec": 0,
        "seconds_waited": 0,
        "seconds_away": 0,
        "cache_hits": 0,
        "batches_served": 0,
        "batches_ready": 0,
        "batches_here": 0,
        "background_errors": 0,
        "bytes_ahead": 0,
        "bytes_groups": 0,
        "bytes_buffers": 0,
    }


def test_metrics_are_shared_by_equal_configs_and_by_no_others(make_config):
    config, same, other = make_config(), make_config(), make_config(name="other")
    check_batch(config, arsrc.init(config))
    assert arsrc.io_metrics(same)["batches_served"] == 1
    assert arsrc.io_metrics(other)["batches_served"] == 0


def test_batches_of_take_and_batch_at_count_like_the_rest(make_config):
    config = make_config(read=ReadOptions(read_ahead_bytes=0))
    state = arsrc.init(config)
    reads = [
        lambda: arsrc.next_batch(config, state),
        lambda: arsrc.take(config, [3, 1, 4]),
        lambda: arsrc.batch_at(config, state, 5, 2),
        lambda: jax.vmap(lambda ids: arsrc.take(config, ids))(jnp.arange(6).reshape(3, 2)),
    ]
    jax.block_until_ready([read() for read in reads])  # compiled
    for read, num_batches in zip(reads, (1, 1, 1, 3), strict=True):
        before = arsrc.io_metrics(config)
        start = time.perf_counter()
        jax.block_until_ready(read())
        seconds = time.perf_counter() - start
        added = {name: value - before[name] for name, value in arsrc.io_metrics(config).items()}
        assert added["batches_served"] == added["batches_here"] == num_batches
        assert added["batches_ready"] == 0
        assert 0 < added["seconds_in_codec"] < added["seconds_read"] < added["seconds_waited"] < seconds
        assert added["seconds_away"] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cacheable", [False, True])
def test_all_that_is_decoded_is_read_whoever_asks(make_config, kind, cacheable):
    blocks = {"shuffle_records": True, "shuffle_block_size": 10}
    config = make_config(kind, cacheable=cacheable, **blocks, read=ReadOptions(read_ahead_bytes=2**22, ahead="never"))
    state, source = arsrc.init(config), registry.source(config)
    before = arsrc.io_metrics(config)
    for ask in (
        lambda: arsrc.dataset_statistics(config),
        lambda: arsrc.load_resident(config),
        lambda: jax.block_until_ready(arsrc.take(config, [3, 1, 4])),
        lambda: source.take(np.zeros((3, 2), np.uint32)),
        lambda: next(arsrc.iterate(config, state)),
        lambda: next(arsrc.iterate(config, state)),  # from the window
    ):
        start = time.perf_counter()
        ask()
        seconds = time.perf_counter() - start
        after = arsrc.io_metrics(config)
        added = {name: value - before[name] for name, value in after.items()}
        before = after
        if added["records_read"]:
            assert 0 < added["seconds_in_codec"] < added["seconds_read"] < seconds
        else:
            assert added["seconds_in_codec"] == added["seconds_read"] == 0
    assert before["records_read"] >= NUM_RECORDS


def test_the_time_between_batches_is_that_of_the_program(make_config):
    config = make_config(read=ReadOptions(read_ahead_bytes=0))
    batches = arsrc.iterate(config)
    for _ in range(2):
        next(batches)
        time.sleep(0.05)
    next(batches)
    metrics = arsrc.io_metrics(config)
    assert metrics["seconds_away"] >= 0.1
    assert metrics["seconds_waited"] < 0.1


def test_metrics_given_out_do_not_change_later(make_config):
    config = make_config()
    before = arsrc.io_metrics(config)
    check_batch(config, arsrc.init(config))
    assert before["batches_served"] == 0


# Laws under random use.


@pytest.mark.parametrize("kind", KINDS)
def test_any_mixture_of_reads_gives_the_same_as_without_read_ahead_and_cache(make_config, kind):
    plain = make_config(kind, shuffle_records=True, read=ReadOptions(read_ahead_bytes=0, checksum="always"))
    quick = make_config(kind, shuffle_records=True, cacheable=True, read=ReadOptions(read_ahead_bytes=8 * BATCH_BYTES))
    rng = random.Random(0)
    states = [arsrc.state_at(plain, rng.randrange(1000)) for _ in range(3)]
    for _ in range(40):
        which = rng.randrange(3)
        action = rng.choice(["next", "next", "next", "jump", "reset", "close"])
        if action == "jump":
            states[which] = arsrc.state_at(plain, rng.randrange(1000))
        elif action == "reset":
            arsrc.reset_cache(quick)
        elif action == "close":
            arsrc.close(quick)
        expected, batch = arsrc.next_batch(plain, states[which])
        _, found = arsrc.next_batch(quick, states[which])
        np.testing.assert_array_equal(found.data, batch.data)
        np.testing.assert_array_equal(found.data, DATA[np.asarray(found.record_ids)])
        states[which] = expected
