"""Files that are replaced or rewritten while they are open: what begins reads the new ones, what runs goes on."""

import dataclasses
import functools
import gc
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig
from arsrc._host import open_files, registry
from arsrc._host.storage import system

NUM_RECORDS = 40
BATCH_SIZE = 4
KINDS = ["group_size:1,uncompressed", "group_size:10,zstd"]


def records(version: int, num_records: int = NUM_RECORDS) -> np.ndarray:
    """Records of 8 bytes that tell their version and their number."""
    return np.stack([np.full(num_records, version), np.arange(num_records)], 1).astype("<u4").view(np.uint8)


def versions(data: Any) -> list[int]:
    return sorted(set(np.asarray(data).view("<u4")[..., 0].ravel().tolist()))


def write(path: Path, version: int, num_records: int = NUM_RECORDS, options: str = KINDS[0]) -> None:
    arsrc.write_array_record(path, records(version, num_records), options=options)


def move(path: Path, *what: Any) -> None:
    """Let another process put another file there."""
    write(path.with_name("beside"), *what)
    subprocess.run(["mv", path.with_name("beside"), path], check=True)


def overwrite(path: Path, *what: Any) -> None:
    """Write other content into the file that is there."""
    write(path.with_name("beside"), *what)
    with open(path, "r+b") as file:
        file.write(path.with_name("beside").read_bytes())
        file.truncate()


HOW: dict[str, Callable[..., None]] = {"write_array_record": write, "mv": move, "overwrite": overwrite}

Entry = Callable[[ArrayRecordSourceConfig, arsrc.SourceState], Any]
BEGINNINGS: dict[str, Entry] = {
    "init": lambda config, _: arsrc.next_batch(config, arsrc.init(config))[1].data,
    "next_batch": lambda config, state: arsrc.next_batch(config, state)[1].data,
    "next_batches": lambda config, state: arsrc.next_batches(config, state, 3)[1].data,
    "iterate": lambda config, _: next(arsrc.iterate(config))[1].data,
    "iterate from a state": lambda config, state: next(arsrc.iterate(config, state))[1].data,
    "load_resident": lambda config, _: arsrc.load_resident(config),
    "take": lambda config, _: arsrc.take(config, [0, 5]).data,
    "batch_at": lambda config, state: arsrc.batch_at(config, state, 3).data,
    "a program": lambda config, state: jax.jit(functools.partial(arsrc.next_batch, config))(state)[1].data,
    "dataset_statistics": lambda config, _: arsrc.dataset_statistics(config).min,
}


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(open_files, "_LOOK_SHARE", 0)  # however long looking takes on a busy machine
    arsrc.close()
    yield
    arsrc.close()


def made(path: Path) -> ArrayRecordSourceConfig:
    return ArrayRecordSourceConfig(path, BATCH_SIZE)


@pytest.mark.parametrize("options", KINDS, ids=["mapped", "compressed"])
@pytest.mark.parametrize("how", HOW)
def test_whatever_begins_reads_the_files_that_are_there_now(tmp_path, how, options):
    for number, (name, begin) in enumerate(BEGINNINGS.items()):
        path = tmp_path / f"{number}"
        write(path, 1, NUM_RECORDS, options)
        state = arsrc.init(made(path))
        assert versions(begin(made(path), state)) == [1], name
        for version, num_records in ((2, NUM_RECORDS), (3, NUM_RECORDS - BATCH_SIZE)):
            HOW[how](path, version, num_records, options)
            assert versions(begin(made(path), state)) == [version], name
            assert arsrc.num_records(made(path)) == num_records


@pytest.mark.parametrize("ask", [arsrc.num_records, lambda config: (arsrc.init(config), arsrc.num_records(config))[1]])
def test_files_that_a_glob_gains_or_loses_are_noticed(tmp_path, ask):
    config = made(tmp_path / "*.array_record")
    counts = []
    for number in range(3):
        write(tmp_path / f"{number}.array_record", 1)
        counts.append(ask(config))
    (tmp_path / "1.array_record").unlink()
    counts.append(ask(config))
    assert counts == [NUM_RECORDS * n for n in (1, 2, 3, 2)]


def test_what_changed_is_said_in_the_log(tmp_path, caplog):
    path = tmp_path / "x"
    write(path, 1)
    state = arsrc.init(made(path))
    move(path, 2, 20)
    with caplog.at_level(logging.INFO, "arsrc"):
        arsrc.next_batch(made(path), state)
        move(path, 3, 30)
        arsrc.init(made(path))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    said = [(level, text) for level, text in said if not text.startswith("opened")]
    assert [level for level, _ in said] == ["WARNING", "INFO"]  # a state of other files is at hand; or none is
    assert "num_records_then=40, num_records=20" in said[0][1]
    assert "num_records_then=20, num_records=30" in said[1][1]


@pytest.mark.parametrize("num_records", [NUM_RECORDS, 20], ids=["as many", "fewer"])
@pytest.mark.parametrize("options", KINDS, ids=["mapped", "compressed"])
def test_loops_that_run_go_on_with_what_they_opened_while_others_begin(tmp_path, options, num_records):
    path = tmp_path / "x"
    write(path, 1, NUM_RECORDS, options)
    state = arsrc.init(made(path))
    step = jax.jit(functools.partial(arsrc.next_batch, made(path)))
    loop = arsrc.iterate(made(path), arsrc.init(made(path), jax.random.key(1)))
    for _ in range(3):
        state, batch = step(state)
        assert versions(batch.data) == versions(next(loop)[1].data) == [1]
    move(path, 2, num_records, options)
    newer = arsrc.iterate(made(path))
    for _ in range(4):
        assert versions(next(newer)[1].data) == [2]
        state, batch = step(state)
        assert versions(batch.data) == versions(next(loop)[1].data) == [1]
        np.testing.assert_array_equal(batch.data, records(1)[np.asarray(batch.record_ids)])
    again = arsrc.init(made(path))
    if num_records == NUM_RECORDS:  # a program that fits what is there now reads it where a loop begins
        for _ in range(3):
            again, batch = step(again)
            assert versions(batch.data) == [2]
    else:
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="the files changed after the program"):
            jax.block_until_ready(step(again))
    arsrc.close(made(path))
    assert not registry._registry.replaced


def test_a_loop_that_begins_where_another_was_left_after_one_step_reads_the_new_files(tmp_path):
    path = tmp_path / "x"
    write(path, 1)
    step = jax.jit(functools.partial(arsrc.next_batch, made(path)))
    step(arsrc.init(made(path)))
    for version in (2, 3):
        write(path, version)
        state, found = arsrc.init(made(path)), []
        for _ in range(2):
            state, batch = step(state)
            found += versions(batch.data)
        assert found == [version, version]


def test_replaced_files_are_closed_when_no_loop_has_asked_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_REPLACED_SECONDS", 0.0)
    path = tmp_path / "x"
    for version in range(5):
        write(path, version)
        assert versions(BEGINNINGS["init"](made(path), None)) == [version]
        gc.collect()
        assert len(registry._registry.replaced) <= 1
    if os.path.isfile("/proc/self/maps"):
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
        assert len(mapped) <= 2


def test_what_is_gone_can_be_read_on_but_not_begun(tmp_path):
    path = tmp_path / "x"
    write(path, 1)
    config = made(path)
    state = arsrc.init(config)
    path.unlink()
    for _ in range(3):
        state, batch = arsrc.next_batch(config, state)
        assert versions(batch.data) == [1]
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="match no file"):
        arsrc.init(config)
    write(path, 2)
    assert versions(BEGINNINGS["init"](config, state)) == [2]


def test_a_file_that_becomes_none_is_an_error_until_it_is_one_again(tmp_path):
    path = tmp_path / "x"
    write(path, 1)
    config = made(path)
    state = arsrc.init(config)
    path.write_bytes(b"no records")
    for begin in BEGINNINGS.values():
        with pytest.raises(arsrc.ArsrcReadError):
            begin(config, state)
    write(path, 2)
    assert versions(BEGINNINGS["init"](config, state)) == [2]


def test_looking_takes_a_bounded_part_of_the_time_but_what_is_written_here_is_seen_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(open_files, "_LOOK_SHARE", 10**9)
    path = tmp_path / "x"
    write(path, 1)
    write(tmp_path / "beside", 2)
    config = made(path)
    state = arsrc.init(config)
    assert arsrc.num_records(config) == NUM_RECORDS  # looks
    os.replace(tmp_path / "beside", path)
    assert versions(arsrc.next_batch(config, state)[1].data) == [1]
    write(tmp_path / "y", 1)
    assert versions(arsrc.next_batch(config, state)[1].data) == [2]


def test_a_loop_goes_on_whoever_else_looks_at_its_place_meanwhile(tmp_path):
    path = tmp_path / "x"
    write(path, 1)
    config = made(path)
    step = jax.jit(functools.partial(arsrc.next_batch, config))
    state, _ = step(arsrc.init(config))
    write(path, 2)
    for row in range(5):
        if row == 1:
            assert versions(arsrc.peek(config, state).data) == [2]
        if row == 2:
            assert versions(next(arsrc.iterate(config, state))[1].data) == [2]
        if row == 3:  # the threads rest when nobody has asked for a while
            registry._registry.replaced[0][1].files.ahead.rest()
        state, batch = step(state)
        assert versions(batch.data) == [1]


def test_iterate_goes_on_however_long_nobody_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_REPLACED_SECONDS", 0.0)
    path = tmp_path / "x"
    write(path, 1)
    loop = arsrc.iterate(made(path))
    assert versions(next(loop)[1].data) == [1]
    for version, num_records in ((2, NUM_RECORDS), (3, 20)):
        write(path, version, num_records)
        for _ in range(2):
            assert versions(BEGINNINGS["init"](made(path), None)) == [version]
            arsrc.num_records(ArrayRecordSourceConfig(path, 5))  # another one is opened, and idle ones are retired
            assert versions(next(loop)[1].data) == [1]


def test_files_that_cannot_be_opened_do_no_harm_to_loops_that_run(tmp_path):
    path = tmp_path / "x"
    write(path, 1)
    write(tmp_path / "y", 2)
    config = made(path)
    step = jax.jit(functools.partial(arsrc.next_batch, config))
    loop, (state, _) = arsrc.iterate(config, arsrc.init(config, jax.random.key(1))), step(arsrc.init(config))
    next(loop)
    (tmp_path / "bad").write_bytes(b"no records")
    os.replace(tmp_path / "bad", path)
    for _ in range(3):
        with pytest.raises(arsrc.ArsrcReadError):
            arsrc.num_records(config)
        state, batch = step(state)
        assert versions(batch.data) == versions(next(loop)[1].data) == [1]
    os.replace(tmp_path / "y", path)
    assert versions(BEGINNINGS["init"](config, state)) == [2]
    assert versions(step(state)[1].data) == versions(next(loop)[1].data) == [1]


class Replacing(system.System):
    """Lets a file be replaced right before one of the times that it is looked at or opened."""

    def __init__(self, before: int, replace: Callable[[], None]) -> None:
        self.num_left, self.replace = before, replace

    def count(self, path: str) -> None:
        if path.endswith(".array_record"):
            self.num_left -= 1
            if self.num_left == 0:
                self.replace()

    def stat(self, path: str, follow_links: bool = True) -> os.stat_result:
        self.count(path)
        return super().stat(path, follow_links)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        self.count(path)
        return super().open(path, flags)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_replaced_while_they_are_opened_are_opened_anew(tmp_path, monkeypatch, kind):
    paths = [tmp_path / f"{name}.array_record" for name in "ab"]
    seen, num_calls, is_over = set(), 0, False
    while not is_over:
        num_calls += 1
        for path in paths:
            write(path, 0, NUM_RECORDS, kind)
            write(path.with_suffix(".new"), 1, NUM_RECORDS + 10, kind)

        def replace() -> None:
            for path in paths:
                os.rename(path.with_suffix(".new"), path)

        faulty = Replacing(num_calls, replace)
        monkeypatch.setattr(system, "calls", faulty)
        config = ArrayRecordSourceConfig([str(path) for path in paths], 10, num_epochs=1, name=str(num_calls))
        rows = np.concatenate([batch.data for _, batch in arsrc.iterate(config)])
        found, num_records = versions(rows), len(rows)
        is_over = faulty.num_left > 0
        assert (found, num_records) in (([0], 2 * NUM_RECORDS), ([1], 2 * NUM_RECORDS + 20))
        seen.add(found[0])
        monkeypatch.undo()
        arsrc.close()
    assert seen == {0, 1}
    assert num_calls > 4


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_closed_while_others_begin_with_them_are_opened_anew(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.array_record"
    num_calls, is_over = 0, False
    while not is_over:
        num_calls += 1
        write(path, 0, NUM_RECORDS, kind)
        config = ArrayRecordSourceConfig(str(path), 10, num_epochs=1)
        arsrc.init(config)
        write(path.with_suffix(".new"), 1, NUM_RECORDS, kind)
        os.rename(path.with_suffix(".new"), path)
        arsrc.init(dataclasses.replace(config, name="opened the new ones before"))
        faulty = Replacing(num_calls, arsrc.close)
        monkeypatch.setattr(system, "calls", faulty)
        assert versions(np.concatenate([batch.data for _, batch in arsrc.iterate(config)])) == [1]
        is_over = faulty.num_left > 0
        monkeypatch.undo()
        arsrc.close()
    assert num_calls > 1


def test_a_handler_that_opens_a_source_in_the_midst_of_opening_another_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.array_record"
    write(path, 0, NUM_RECORDS, KINDS[0])
    config = ArrayRecordSourceConfig(str(path), 10)
    other = dataclasses.replace(config, batch_size=5)  # another thread might be opening it, and wait for these files
    refused = []

    def handle() -> None:
        with pytest.raises(arsrc.ArsrcReadError, match="signal handler"):
            arsrc.num_records(other)
        refused.append(True)

    monkeypatch.setattr(system, "calls", Replacing(2, handle))
    assert arsrc.num_records(config) == arsrc.num_records(other) == NUM_RECORDS
    assert refused
    arsrc.close()
