"""Interrupts and signal handlers, step by step: nothing hangs, and afterwards all is as it was."""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from interrupting import KINDS, NUM_FILES, ROWS, at_call, at_step, check, sources

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions, SourceState
from arsrc._host import registry
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers import files
from arsrc._host.serving.loading import Loader

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


class Hit(KeyboardInterrupt):
    """An interrupt."""


def hit() -> None:
    raise Hit


def interrupted_at(number: int, work: Callable[[], Any]) -> bool:
    """Do `work`, interrupted at its n-th step, if it has so many; whether it has."""
    try:
        at_step(number, hit, work)
    except Hit:
        return True
    return False


def test_a_copy_that_is_interrupted_at_any_step_writes_nothing_later() -> None:
    copier, number, active = Copier(), 1, set[int]()

    def work(start: int, stop: int) -> None:
        active.add(start)
        time.sleep(0.002)
        active.discard(start)

    bounds = list(range(7))
    copier.run(work, bounds)
    while interrupted_at(number, lambda: copier.run(work, bounds)):
        assert not active
        done: list[int] = []
        copier.run(lambda start, stop, done=done: done.append(start), bounds)  # type: ignore[misc]
        assert sorted(done) == bounds[:-1]
        number += 1
    copier.close()
    assert number > 20


def test_work_on_threads_that_is_interrupted_at_any_step_can_be_done_again() -> None:
    number = 1

    def slow(value: int) -> int:
        time.sleep(0.011)
        return -value

    while interrupted_at(number, lambda: on_threads(slow, range(4))):
        assert on_threads(slow, range(4)) == [-value for value in range(4)]
        number += 1
    assert number > 10


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ArrayRecordSourceConfig]:
    return sources(tmp_path_factory.mktemp("sources"))


def iterate(config: ArrayRecordSourceConfig) -> None:
    batches = arsrc.iterate(config)
    for _ in range(4):
        _, batch = next(batches)
        check(config, batch)
    arsrc.close(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where a file closes that nobody uses
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_at_any_step_leaves_a_source_that_is_read_and_closed(
    configs: dict[str, ArrayRecordSourceConfig], kind: str
) -> None:
    config = configs[kind]
    iterate(config)
    num_steps = at_step(0, hit, lambda: iterate(config))
    every = 1 if IS_THOROUGH else num_steps // 6
    for number in range(random.randrange(every), num_steps + 1, every):
        interrupted_at(number, lambda: iterate(config))
        iterate(config)


def ask(config: ArrayRecordSourceConfig, state: SourceState) -> None:
    """Call what a handler may call at any moment."""
    assert arsrc.to_state_dict(config, state)["index"] == int(state.index)
    assert arsrc.fingerprint(config).startswith("480 records")
    assert arsrc.io_metrics(config)["records_read"] >= 0
    assert arsrc.num_records(config) == 480
    assert arsrc.operation_stats(config, state)["applied_count"] == int(state.index)
    assert arsrc.element_spec(config).shape == (6,)
    assert arsrc.explain(config)


def read(config: ArrayRecordSourceConfig, state: SourceState) -> None:
    with jax.ensure_compile_time_eval():  # JAX may be tracing
        check(config, next(arsrc.iterate(config, state))[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_at_any_step_a_handler_may_save_and_count_and_close_and_read_or_is_refused(
    configs: dict[str, ArrayRecordSourceConfig], kind: str
) -> None:
    config = configs[kind]
    state = arsrc.state_at(config, 5)
    iterate(config)
    acts: list[Callable[[], Any]] = [
        lambda: ask(config, state),
        lambda: read(config, state),
        lambda: arsrc.close(config),
        lambda: (arsrc.close(), ask(config, state), read(config, state)),
    ]

    def handle(act: Callable[[], Any]) -> None:
        try:
            act()
        except arsrc.ArsrcReadError as error:
            if "signal handler" not in str(error):
                raise

    num_steps = at_step(0, hit, lambda: iterate(config))
    every = 3 if IS_THOROUGH else num_steps // 2
    for act in acts:
        for number in range(random.randrange(every), num_steps + 1, every):
            at_step(number, lambda act=act: handle(act), lambda: iterate(config))  # type: ignore[misc]
    iterate(config)


def is_waiting(name: str, function: str) -> bool:
    """Whether a thread of this name is in a function of this one."""
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0) if thread.name == name else None
        while frame is not None:
            if frame.f_code.co_qualname == function:
                return True
            frame = frame.f_back
    return False


@pytest.mark.parametrize("kind", ["mapped, ahead", "groups, in windows"])
def test_a_handler_reads_what_a_thread_loads_that_waits_for_what_it_has_interrupted(
    configs: dict[str, ArrayRecordSourceConfig], kind: str
) -> None:
    config = configs[kind]
    states = [arsrc.state_at(config, step) for step in range(6)]
    num_waiting = 0

    def act() -> None:
        nonlocal num_waiting
        time.sleep(0.01)  # so that threads come to wait
        num_waiting += is_waiting("arsrc-read-ahead", "Once.get")
        for state in states:
            read(config, state)

    for turn in range(300):
        at_call(Loader.locate.__code__, turn % 3 + 1, act, lambda: iterate(config))
        if turn > 30 and (num_waiting or kind == "groups, in windows"):  # whose groups are mostly there
            break
    else:
        assert num_waiting


def test_a_handler_that_asks_for_a_batch_in_the_midst_of_opening_files_is_refused(
    configs: dict[str, ArrayRecordSourceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_TOGETHER", 4)
    size = len(ROWS) // NUM_FILES
    paths = [f"{str(configs['mapped'].paths[0]).removesuffix('*')}{file:02d}[0:{size}]" for file in range(NUM_FILES)]
    config = ArrayRecordSourceConfig(paths, size, read=ReadOptions(ahead="always"))
    host = registry.source(config)
    state = arsrc.state_at(config, 20)
    refusals = []

    def act() -> None:
        for _ in range(3):
            with pytest.raises(
                arsrc.ArsrcReadError, match="a signal handler asked for a batch in the midst of opening"
            ):
                read(config, state)
            refusals.append(1)

    opening = files.Files._opened_files.__code__
    at_call(opening, 1, act, lambda: host.elements.read(np.array([30 * size], np.uint32)))
    assert len(refusals) == 3
    iterate(config)
