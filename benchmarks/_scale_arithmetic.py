"""Studies of the arithmetic of states and orders at any size: no files are needed for it."""

import functools
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _study import Study, of, timing

from arsrc._host.serving.loading import Loader
from arsrc._host.serving.requests import Request
from arsrc.order import arithmetic, record_order
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan
from arsrc.state import next_rows
from arsrc.types import SourceState

BATCH = 256
_MOST = 2**32 - 1
_READ_AHEAD_ROWS = 4096
_KEY_WORDS = np.array([0, 42], np.uint32)


def _plan(num_records: int, batch_size: int = BATCH, **how: Any) -> Plan:
    return Plan(num_records, batch_size, -1, "drop", **{"shuffle_records": True, **how})


def _state(plan: Plan) -> SourceState:
    """Return a state in the middle of an epoch."""
    index = jnp.asarray(plan.num_records // 2 // plan.batch_size * plan.batch_size, jnp.uint32)
    return SourceState(index=index, epoch=jnp.asarray(3, jnp.uint32), key=jax.random.key(42))


def _on_host(plan: Plan, num_rows: int = _READ_AHEAD_ROWS) -> Callable[[], Any]:
    """Return what a read-ahead thread does for so many rows: their record ids, in NumPy."""
    position = np.linspace(0, plan.num_records - 1, num_rows, dtype=np.uint32)
    return lambda: record_order.record_at(np, plan, _KEY_WORDS, np.array([3], np.uint32), position)


def _peak_bytes(call: Callable[[], Any]) -> int:
    call()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@functools.partial(jax.jit, static_argnums=0)
def _next(plan: Plan, state: SourceState) -> tuple[Any, Any]:
    """What `next_batch` computes on the device: ids, mask, next state."""
    index, epoch = arithmetic.advance(jnp, plan, state.index, state.epoch, 1)
    return next_rows(plan, state)[:2], (index, epoch)


@functools.partial(jax.jit, static_argnums=0)
def _locate(plan: Plan, state: SourceState, record_ids: Any) -> Any:
    return record_order.position_of(jnp, plan, jax.random.key_data(state.key), state.epoch, record_ids)


def records(quick: bool) -> Study:
    """Over the number of records."""
    study = Study(
        "Records",
        f"What does the order of an epoch cost, and where a state stands in it? {BATCH} records a batch, on the "
        f"device for a batch, on the host for {_READ_AHEAD_ROWS} rows; calls from Python.",
        ("records", "on the device", "in blocks", "inverse", "on the host", "host memory, B", "state, B"),
    )
    for num_records in (10**3, _MOST) if quick else (10**3, 10**5, 10**7, 10**9, _MOST):
        plan = _plan(num_records)
        blocks = _plan(num_records, blocks=Blocks(num_records, BATCH, 32 * BATCH))
        state = _state(plan)
        ids = jnp.asarray(np.linspace(0, num_records - 1, BATCH, dtype=np.uint32))
        host = _on_host(plan)
        study.rows.append(
            (
                num_records,
                timing(functools.partial(_next, plan, state)),
                timing(functools.partial(_next, blocks, state)),
                timing(functools.partial(_locate, plan, state, ids)),
                timing(host),
                _peak_bytes(host),
                sum(leaf.nbytes for leaf in (state.index, state.epoch, jax.random.key_data(state.key))),
            )
        )
    return study


def _temporary_bytes(compiled: Any) -> int:
    """Return what a compiled program needs beside arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def devices(quick: bool) -> Study:
    """Over the number of devices, each of which reads its rows of the global batch."""
    study = Study(
        "Devices",
        f"What does one device, and its host, compute to find its {BATCH} rows of a global batch among 2**32 - 1 "
        "records? The host's part is measured with a simulated reader.",
        ("devices", "on the device", "device memory, B", "on the host", "host memory, B"),
    )
    for num_devices in (1, 64) if quick else (1, 8, 64, 512, 4096):
        plan = _plan(_MOST, BATCH * num_devices)
        state = _state(plan)
        first_row = jnp.asarray(BATCH * (num_devices // 2), jnp.uint32)
        program = jax.jit(functools.partial(_rows_of_device, plan))
        host = functools.partial(_load, plan, state, int(first_row))
        study.rows.append(
            (
                num_devices,
                timing(functools.partial(program, state, first_row)),
                _temporary_bytes(program.lower(state, first_row).compile()),
                timing(host),
                _peak_bytes(host),
            )
        )
    return study


def _rows_of_device(plan: Plan, state: SourceState, first_row: Any) -> tuple[Any, Any]:
    return next_rows(plan, state, first_row, BATCH)[:2]


class _NoElements:
    """Stands below the reader interface: elements of no bytes."""

    label = ""
    shapes: Sequence[Any] = (((0,), np.dtype(np.uint8)),)

    def locate(self, record_ids: Any) -> None:
        """Say that nothing can be copied from where it lies."""

    def read(self, record_ids: Any, stop: Any = None, masks: bool = False, outs: Any = None) -> list[Any]:
        return [np.empty((*record_ids.shape, 0), np.uint8)]


def _load(plan: Plan, state: SourceState, first_row: int) -> Any:
    """Load one device's rows as the host does, but for the reading."""
    elements: Any = _NoElements()
    where = (int(state.index), int(state.epoch), *_KEY_WORDS.tolist())
    loader = Loader(plan, elements, masks=False)
    planned = loader.plan(Request((where,), 1, first_row, BATCH), 1)
    return loader.load(planned, loader.locate(planned.requests), 0, 1)


def files(quick: bool) -> Study:
    """Over the number of files that are permuted each epoch."""
    study = Study(
        "Files, permuted",
        f"What does `shuffle_files` cost? Its tables are computed for each batch of {BATCH} on the device, for each "
        f"{_READ_AHEAD_ROWS} rows on the host.",
        ("files", "on the device", "trace and compile", "device memory, B", "on the host", "host memory, B"),
    )
    for num_files in (10, 1000) if quick else (1, 10, 100, 1000, 10_000, 100_000):
        sizes = tuple(1000 + number % 7 for number in range(num_files))
        plan = _plan(sum(sizes), shuffle_records=False, file_sizes=sizes)
        state = _state(plan)
        begin = time.perf_counter()
        compiled = _next.lower(plan, state).compile()
        compiling = of([time.perf_counter() - begin])
        host = _on_host(plan)
        study.rows.append(
            (
                num_files,
                timing(functools.partial(_next, plan, state)),
                compiling,
                _temporary_bytes(compiled),
                timing(host),
                _peak_bytes(host),
            )
        )
    return study
