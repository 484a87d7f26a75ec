"""Contestants: arsrc's packed rows and mixtures, inside a scan."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from _arsrc import BATCH as RECORDS
from _arsrc import CHECKED, first_state
from _data import DataSet
from _harness import Contestant, Pieces, Session, WrongDelivery
from _packing_data import MAX_TOKENS, NAMES, ROW, Documents, Rows
from _packing_step import BATCH, FETCH, consume_rows
from _train_step import start

import arsrc
from arsrc.codecs import Ragged

Sources = Sequence[Sequence[str]]  # paths of each

_MOST_STEPS = 256
_CHECKED_STEPS = 64
_COUNTS = "reading, the scan, the step"


def documents(paths: Sequence[str], name: str, how: str | None) -> Any:
    """Return a config of documents, packed or not."""
    packing = {} if how is None else {"pack": arsrc.Packing(ROW, how=how)}
    codec = Ragged("int32", max_length=MAX_TOKENS)
    return arsrc.ArrayRecordSourceConfig(paths, BATCH, codec=codec, shuffle_records=True, name=name, **packing)


def packed(data: Documents, how: str) -> Contestant:
    """`Packing(how)`; a whole epoch of it is checked."""
    name = f"arsrc, {how}"
    return _of_rows(name, data, lambda: documents(data.paths, name, how), how, is_whole_epoch=True)


def mixture(data: Documents, parts: Sources, weights: Sequence[float]) -> Contestant:
    """`MixtureConfig` of packed sources."""
    name = f"arsrc, mixture of {len(parts)}"

    def config() -> Any:
        sources = tuple(documents(paths, f"{name}, {number}", "fit") for number, paths in enumerate(parts))
        return arsrc.MixtureConfig(sources=sources, weights=tuple(weights), batch_size=BATCH)

    return _of_rows(name, data, config, "fit", is_whole_epoch=False, shares=(parts, weights))


def single(data: Documents) -> Contestant:
    """All documents as one source, packed as those of the mixtures."""
    return _of_rows(
        "arsrc, one source", data, lambda: documents(data.paths, "one source", "fit"), "fit", is_whole_epoch=False
    )


def _scan(config: Any, num_steps: int, body: Any) -> Callable[[Any, Any], Any]:
    @jax.jit
    def program(state: Any, carry: Any) -> Any:
        return arsrc.scan_steps(config, state, carry, body, num_steps, batches_per_fetch=FETCH)

    return program


def _delivered(config: Any, num_steps: int) -> Iterator[Rows]:
    """Give the rows of so many steps as a scan gets them, in parts."""
    state = first_state(config, 0)
    program = _scan(config, FETCH, lambda carry, batch: (carry, batch.data))
    for _ in range(max(1, num_steps // FETCH)):
        state, _, rows = program(state, None)
        yield {name: np.asarray(rows[name]).reshape(-1, ROW) for name in NAMES}


def _of_rows(
    name: str,
    data: Documents,
    make: Callable[[], Any],
    how: str,
    *,
    is_whole_epoch: bool,
    shares: tuple[Sources, Sequence[float]] | None = None,
) -> Contestant:
    """A contestant that delivers packed rows; its rate counts tokens, not padding."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        config = make()
        try:
            num_steps = arsrc.steps_per_epoch(config)
            found = _delivered(config, num_steps if is_whole_epoch else min(num_steps, _CHECKED_STEPS))
            if shares is not None:
                found = _with_shares(found, data, *shares)
            # The rest of an epoch, less than FETCH batches and one, is not looked at.
            least = data.num_tokens - (FETCH + 1) * BATCH * ROW if is_whole_epoch else 0
            fill = data.check(found, whole=how == "fit", once=shares is None, least=least)
            steps = min(num_steps // FETCH * FETCH or num_steps, _MOST_STEPS)
            program = _scan(config, steps, lambda carry, batch: consume_rows(carry, batch.data))

            def pieces(turn: int) -> Pieces:
                state, carry = first_state(config, turn), start()
                while True:
                    state, carry, _ = program(state, carry)
                    yield int(steps * BATCH * ROW * fill), carry.block_until_ready
                    carry.block_until_ready()  # one program at a time

            yield Session(pieces, None)
        finally:
            arsrc.close()

    return Contestant(f"{name}, scan, {FETCH} per fetch", "arsrc", _COUNTS, opened)


def _with_shares(found: Iterator[Rows], data: Documents, parts: Sources, weights: Sequence[float]) -> Iterator[Rows]:
    """Give rows on, and compare how many are of each source with its weight: to within the bound that is promised."""
    bound = 2 - 1 / (len(parts) - 1)
    starts = np.cumsum([0, *map(len, parts)])[:-1] * data.num_documents // data.num_files  # parts are whole files
    counts = np.zeros(len(parts), np.int64)
    for rows in found:
        sources = np.searchsorted(starts, data.documents(rows["tokens"][:, 0]), side="right") - 1
        counts += np.bincount(sources, minlength=len(parts))
        total = counts.sum()
        if (abs(counts - total * np.asarray(weights) / sum(weights)) > bound + 1e-4 * total).any():
            raise WrongDelivery("other shares than the weights")
        yield rows


def opening(data: Documents, how: str | None) -> Contestant:
    """Opening all files and, packed, making the table; nothing else is read."""
    name = f"arsrc, open, {how or 'not packed'}"

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        config = documents(data.paths, name, how)

        def pieces(turn: int) -> Pieces:
            del turn
            try:
                while True:
                    arsrc.close(config)
                    arsrc.init(config)
                    yield data.num_documents, lambda: None
            finally:
                arsrc.close(config)  # the files are the same ones, which the next shall have to open

        yield Session(pieces, None)

    counts = "opening all files, and closing them" + (", and the table of rows" if how else "")
    return Contestant(name, "arsrc", counts, opened)


def fill(data: Documents, how: str) -> float:
    """Return which part of all rows is tokens."""
    config = documents(data.paths, "fill", how)
    try:
        return data.num_tokens / (arsrc.num_records(config) * ROW)
    finally:
        arsrc.close(config)


def all_rows(data: Documents, how: str) -> Rows:
    """Return all rows in order."""
    config = documents(data.paths, "all rows", how)
    try:
        num_rows = arsrc.num_records(config)
        rows = {name: np.empty((num_rows, ROW), np.int32) for name in NAMES}
        for first in range(0, num_rows, 1024):
            some = arsrc.take(config, np.arange(first, min(first + 1024, num_rows))).data
            for name, array in rows.items():
                array[first : first + 1024] = some[name]
        return rows
    finally:
        arsrc.close(config)


def records(data: DataSet, parts: Sources, weights: Sequence[float]) -> Contestant:
    """Plain records, 256 a batch: a mixture of sources, or one of all files."""
    name = f"arsrc, mixture of {len(parts)}" if len(parts) > 1 else "arsrc, one source"
    source = functools.partial(arsrc.ArrayRecordSourceConfig, batch_size=RECORDS, shuffle_records=True)

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        config: Any = source(parts[0], name=name)
        if len(parts) > 1:
            sources = tuple(source(paths, name=f"{name}, {number}") for number, paths in enumerate(parts))
            config = arsrc.MixtureConfig(sources=sources, weights=tuple(weights), batch_size=RECORDS)
        steps = min(data.num_records // RECORDS, _MOST_STEPS)
        program = _scan(config, steps, lambda carry, batch: consume_rows(carry, batch.data))

        def pieces(turn: int) -> Pieces:
            state, carry = first_state(config, turn), start()
            while True:
                state, carry, _ = program(state, carry)
                yield steps * RECORDS, carry.block_until_ready
                carry.block_until_ready()

        def batches() -> Any:
            keep = _scan(config, max(CHECKED, FETCH), lambda carry, batch: (carry, batch.data))
            return keep(first_state(config, 0), None)[2]

        try:
            yield Session(pieces, batches)
        finally:
            arsrc.close()

    return Contestant(f"{name}, scan, {FETCH} per fetch", "arsrc", _COUNTS, opened)
