"""Reads that hang: an error at the limit that names what was being read, and afterwards the exact bytes."""

import dataclasses
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from fault_systems import Hanging

import arsrc
from arsrc import ArrayRecordSourceConfig, ArsrcReadError, ReadOptions, SourceState
from arsrc._host.machine import threads
from arsrc._host.machine.threads import Late, within
from arsrc._host.storage import system

pytestmark = pytest.mark.slow

ROWS = np.arange(40 * 5, dtype=np.uint8).reshape(40, 5)
LARGE = np.arange(8 * 40_000, dtype="<u4").view(np.uint8).reshape(8, -1)
KINDS = {
    "single": (ROWS, "group_size:1,uncompressed"),
    "grouped": (ROWS, "group_size:4,uncompressed"),
    "large": (LARGE, "group_size:1,uncompressed"),
    "zstd": (ROWS, "group_size:4,zstd"),
}


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ArrayRecordSourceConfig, np.ndarray]]:
    rows, options = KINDS[request.param]
    path = tmp_path / "a.array_record"
    arsrc.write_array_record(path, rows, options=options)
    yield ArrayRecordSourceConfig(str(path), 4, read=ReadOptions(timeout_seconds=0.2), num_epochs=1), rows
    arsrc.close()


@pytest.mark.parametrize("call", ["stat", "open", "pread"])
def test_a_file_system_that_hangs_while_files_are_opened_is_an_error_and_then_all_is_well(
    source: tuple[ArrayRecordSourceConfig, np.ndarray], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    config, rows = source
    hanging = Hanging(call)
    monkeypatch.setattr(system, "calls", hanging)
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(ArsrcReadError, match=r"longer than it may: .*a\.array_record.*timeout_seconds=0\.2"):
            arsrc.init(config)
        assert time.monotonic() - start < 30
    assert hanging.num_hung >= 1
    hanging.release.set()
    assert_exact(config, rows)


@pytest.mark.parametrize("call", ["stat", "fstat", "copy", "pread"])
def test_a_read_that_hangs_is_an_error_and_then_all_is_well(
    source: tuple[ArrayRecordSourceConfig, np.ndarray], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    config, rows = source
    state = arsrc.init(config)
    arsrc.next_batch(config, state)
    hanging = Hanging(call)
    monkeypatch.setattr(system, "calls", hanging)
    failed = 0
    for _ in range(3):
        try:
            np.testing.assert_array_equal(arsrc.take(config, [3, 1]).data, rows[[3, 1]])
        except Exception as error:
            failed += 1
            text = str(error)
            assert "longer than it may" in text
            assert "a.array_record" in text
    if call == "copy":  # as mapped files are read where there is a limit, and groups that are not kept
        assert failed == 3 or "zstd" in str(arsrc.explain(config))
    hanging.release.set()
    assert_exact(config, rows)


WAYS: dict[str, Callable[[ArrayRecordSourceConfig, SourceState], Any]] = {
    "iterate": lambda config, state: next(arsrc.iterate(config, state)),
    "eager": arsrc.next_batch,
    "scan": lambda config, state: jax.jit(
        lambda state: arsrc.scan_steps(config, state, 0, lambda carry, batch: (carry, batch), 1)
    )(state),
    "batches": lambda config, state: arsrc.next_batches(config, state, 1),
}
ERRORS = (ArsrcReadError, ValueError, RuntimeError)  # the last two are JAX's


@pytest.fixture
def large(tmp_path: Path) -> Iterator[ArrayRecordSourceConfig]:
    path = tmp_path / "a.array_record"
    arsrc.write_array_record(path, LARGE, options="group_size:1,uncompressed")
    yield ArrayRecordSourceConfig(str(path), 2, read=ReadOptions(timeout_seconds=0.2, ahead="never"), num_epochs=1)
    arsrc.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_that_hangs_is_an_error_whoever_asks_for_it_and_comes_later(
    large: ArrayRecordSourceConfig, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    state = arsrc.init(large)
    WAYS[way](large, state)
    hanging = Hanging("copy")
    monkeypatch.setattr(system, "calls", hanging)
    with pytest.raises(ERRORS, match=r"longer than it may: .*a\.array_record"):
        jax.block_until_ready(WAYS[way](large, state))
    hanging.release.set()
    *_, batch = WAYS[way](large, state)
    np.testing.assert_array_equal(np.asarray(batch.data).reshape(2, -1), LARGE[:2])


def test_what_comes_late_is_written_to_no_memory_that_others_use(
    large: ArrayRecordSourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = jax.jit(lambda state: arsrc.next_batch(large, state))
    states = [arsrc.state_at(large, number) for number in range(4)]
    jax.block_until_ready(step(states[0]))
    hanging, real = Hanging("copy"), system.calls
    monkeypatch.setattr(system, "calls", hanging)
    with pytest.raises(ERRORS, match="longer than it may"):
        jax.block_until_ready(step(states[3]))
    monkeypatch.setattr(system, "calls", real)
    kept = []
    for state in states[:3]:
        kept.append(jax.block_until_ready(step(state)[1].data))
        hanging.release.set()  # it goes on behind the first
    time.sleep(0.1)
    np.testing.assert_array_equal(np.concatenate(kept), LARGE[:6])


def test_a_fingerprint_that_hangs_is_an_error_and_comes_later(
    large: ArrayRecordSourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    arsrc.init(large)
    hanging = Hanging("pread")
    monkeypatch.setattr(system, "calls", hanging)
    with pytest.raises(ArsrcReadError, match=r"longer than it may: samples of .*a\.array_record"):
        arsrc.fingerprint(large)
    hanging.release.set()
    assert arsrc.fingerprint(large).startswith("8 records")


def test_a_source_closes_while_a_thread_that_reads_ahead_hangs(
    large: ArrayRecordSourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(large, read=ReadOptions(timeout_seconds=60, ahead="always"))
    arsrc.init(config)
    hanging = Hanging("copy")
    monkeypatch.setattr(system, "calls", hanging)
    asking = threading.Thread(target=lambda: next(arsrc.iterate(config)))
    asking.start()
    while not hanging.num_hung:
        time.sleep(0.005)
    start = time.monotonic()
    arsrc.close(config)
    assert time.monotonic() - start < 20
    hanging.release.set()
    asking.join()
    assert_exact(config, LARGE)


def test_what_the_system_calls_a_timeout_is_its_own(
    large: ArrayRecordSourceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimesOut(system.System):
        def stat(self, path: str, *arguments: Any, **keywords: Any) -> Any:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)

    monkeypatch.setattr(system, "calls", TimesOut())
    with pytest.raises(ArsrcReadError) as caught:
        arsrc.init(large)
    assert "timeout_seconds" not in str(caught.value)


def assert_exact(config: ArrayRecordSourceConfig, rows: np.ndarray) -> None:
    found = np.concatenate([np.asarray(batch.data) for _, batch in arsrc.iterate(config)])
    np.testing.assert_array_equal(found, rows)


def test_what_takes_no_longer_gives_what_it_gives() -> None:
    assert within(30, lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        within(30, lambda: {}["x"])
    with pytest.raises(Late):
        within(0.01, lambda: time.sleep(0.5))


def test_a_forked_child_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "is_forked", lambda: True)
    assert within(1e-9, lambda: 7) == 7


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "3", True, [1]])
def test_a_limit_is_a_positive_number_of_seconds(wrong: Any) -> None:
    with pytest.raises(arsrc.ArsrcError, match=r"\[arsrc\] ReadOptions\.timeout_seconds: must be"):
        ReadOptions(timeout_seconds=wrong)
    assert ReadOptions(timeout_seconds=3).timeout_seconds == 3.0
