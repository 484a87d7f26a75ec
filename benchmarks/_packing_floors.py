"""Contestants that have all rows packed beforehand: in memory, or in a file, as people do by hand."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import Contestant, Pieces, Session, WrongDelivery
from _packing_data import NAMES, ROW, Documents, Rows
from _packing_step import BATCH, FETCH, consume_rows, step_rows
from _train_step import start
from array_record.python.array_record_module import ArrayRecordReader
from numpy.typing import NDArray

from arsrc.bridge import call_host
from arsrc.host_call import HostCall

_MOST_STEPS = 256


def split_by_hand(data: Documents) -> Rows:
    """Return the rows of "split", all documents end to end, without arsrc."""
    num_rows = -(-data.num_tokens // ROW)
    tokens = np.zeros(num_rows * ROW, np.int32)
    tokens[: data.num_tokens] = data.tokens(0, data.num_documents)
    begins = np.zeros(num_rows * ROW, np.bool_)
    begins[data.ends - data.lengths] = True
    columns = np.arange(ROW, dtype=np.int32)
    begins, tokens = begins.reshape(num_rows, ROW), tokens.reshape(num_rows, ROW)
    begins[:, 0] = True
    segment_ids = begins.cumsum(axis=1, dtype=np.int32)
    positions = columns - np.maximum.accumulate(np.where(begins, columns, np.int32(0)), axis=1)
    for array in (segment_ids, positions):
        array.reshape(-1)[data.num_tokens :] = 0
    return {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}


def in_scan(data: Documents, how: str, make: Callable[[], Rows]) -> Contestant:
    """A gather from arrays in memory, by row numbers that are given, in the callback that arsrc itself uses."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        tables = _tables(make())
        num_rows = len(tables[0])
        steps = min(num_rows // BATCH // FETCH, _MOST_STEPS // FETCH) * FETCH

        def read(ids: NDArray[np.uint32], outs: Any) -> Any:
            outs = outs or [np.empty((1, FETCH, BATCH, ROW), np.int32) for _ in tables]
            for table, out in zip(tables, outs, strict=True):
                np.take(table, ids[0], axis=0, out=out.reshape(-1, ROW), mode="clip")  # other modes copy once more
            return outs, ids

        shape = jax.ShapeDtypeStruct((FETCH, BATCH, ROW), np.dtype(np.int32))
        call = HostCall(read, (shape,) * len(tables), NAMES)

        def fetch(carry: Any, ids: Any) -> Any:
            return jax.lax.scan(consume_rows, carry, call_host(call, ids))[0], None

        program = jax.jit(lambda carry, ids: jax.lax.scan(fetch, carry, ids)[0])
        deliver = jax.jit(lambda ids: call_host(call, ids))

        def plan(turn: int) -> Any:
            order = np.random.default_rng(turn).permutation(num_rows)[: steps * BATCH]
            return jnp.asarray(order.reshape(-1, FETCH * BATCH).astype(np.uint32))

        rows = [np.asarray(array).reshape(-1, ROW) for array in deliver(plan(0)[0])]
        fill = data.check([dict(zip(NAMES, rows, strict=True))], whole=how == "fit")

        def pieces(turn: int) -> Pieces:
            ids = plan(turn)
            while True:
                carry = program(start(), ids)
                yield int(steps * BATCH * ROW * fill), carry.block_until_ready
                carry.block_until_ready()

        yield Session(pieces, None)

    counts = "the scan, the step, np.take(out=) from three arrays of all rows; the order is given"
    return Contestant(f"rows in memory, scan, {FETCH} per fetch", "floor", counts, opened)


def numpy_alone(data: Documents, make: Callable[[], Rows]) -> Contestant:
    """The same gather into the arrays of one batch, without JAX."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        rows = make()
        tables, fill = _tables(rows), np.count_nonzero(rows["segment_ids"]) / rows["segment_ids"].size
        outs = [np.empty((BATCH, ROW), np.int32) for _ in tables]

        def pieces(turn: int) -> Pieces:
            order = np.random.default_rng(turn).permutation(len(tables[0]))
            while True:
                for first in range(0, len(order) - BATCH + 1, BATCH):
                    for table, out in zip(tables, outs, strict=True):
                        np.take(table, order[first : first + BATCH], axis=0, out=out, mode="clip")
                    yield int(BATCH * ROW * fill), lambda: None

        yield Session(pieces, None)

    counts = "one thread, np.take(out=) from three arrays of all rows to the same small ones; no scan, no step"
    return Contestant("rows in memory, NumPy alone", "floor", counts, opened)


def _tables(rows: Rows) -> list[NDArray[np.int32]]:
    return [rows[name] for name in NAMES]


def offline(data: Documents) -> Contestant:
    """Rows of tokens in a file that was written before, from a map: shuffled in NumPy, fed to a jitted step."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        path = _path(data)
        _pack_offline(data, path)
        table = np.memmap(path, np.int32, "r").reshape(-1, ROW)
        if not np.array_equal(table.reshape(-1)[: data.num_tokens], data.tokens(0, data.num_documents)):
            raise WrongDelivery("other tokens than the files hold")

        def pieces(turn: int) -> Pieces:
            order, carry = np.random.default_rng(turn).permutation(len(table)), start()
            while True:
                for first in range(0, len(order) - BATCH + 1, BATCH):
                    carry = step_rows(carry, table[order[first : first + BATCH]])
                    yield BATCH * ROW, carry.block_until_ready

        try:
            yield Session(pieces, None)
        finally:
            path.unlink()

    counts = "tokens alone, a third of the bytes: the gather from the map, transfers, one dispatch of the step a batch"
    return Contestant("offline rows by hand, fed", "by hand", counts, opened)


def packing_offline(data: Documents) -> Contestant:
    """What has to be done before that, and again after any change of what is in the rows."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        path = _path(data)

        def pieces(turn: int) -> Pieces:
            del turn
            while True:
                path.unlink(missing_ok=True)
                _pack_offline(data, path)
                yield data.num_documents, lambda: None

        try:
            yield Session(pieces, None)
        finally:
            path.unlink(missing_ok=True)

    counts = "reading all files in order, and writing the tokens end to end to one; nothing is synced"
    return Contestant("offline rows by hand, packing", "by hand", counts, opened)


def _path(data: Documents) -> pathlib.Path:
    return pathlib.Path(data.paths[0]).with_name("rows.bin")


def _pack_offline(data: Documents, path: pathlib.Path) -> None:
    with open(path, "wb") as file:
        for source in data.paths:
            reader = ArrayRecordReader(source, "readahead_buffer_size:16M")
            file.write(b"".join(reader.read_all()))
            reader.close()
        file.write(bytes(-file.tell() % (ROW * 4)))
