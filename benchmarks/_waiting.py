"""A race over steps that wait outside the CPU: does reading hide behind them?

With c the time of the waiting step alone and r the time of a step that only reads, both measured in the same
round, perfect overlap takes max(c, r).
"""

import functools
import statistics
from collections.abc import Mapping, Sequence

import jax

import _arsrc
import _floors
from _data import DataSet
from _harness import Contestant, Outcome
from _train_step import waiting_step

_ALONE = "no reading"
ITERATE = 0  # stands for `iterate` among numbers of batches per fetch


def _label(ms: float) -> str:
    return f"wait {ms:g} ms"


def contestants(
    data: DataSet, label: str, waits_ms: Sequence[float], fetches: Sequence[int], num_steps: int = 64
) -> list[Contestant]:
    """Return the step alone, reading alone, and both together, for every wait and way to fetch."""
    found = []
    for fetch in fetches:
        found.append(_reading(data, label, fetch, num_steps))
    for ms in waits_ms:
        body = functools.partial(waiting_step, ms / 1000)
        found.append(_floors.on_device(data, body=body, name=f"{label}, {_label(ms)}, {_ALONE}", num_steps=num_steps))
        for fetch in fetches:
            name = f"{label}, {_label(ms)}"
            if fetch == ITERATE:
                jitted = jax.jit(lambda carry, batch, body=body: body(carry, batch)[0])
                found.append(_arsrc.iterate(data, name=name, jitted=jitted))
            else:
                found.append(_arsrc.scan(data, fetch, name=name, body=body, num_steps=num_steps))
    return found


def _reading(data: DataSet, label: str, fetch: int, num_steps: int) -> Contestant:
    if fetch == ITERATE:
        return _arsrc.iterate(data, name=label)
    return _arsrc.scan(data, fetch, name=label, num_steps=num_steps)


def ratios(label: str, outcomes: Mapping[str, Outcome]) -> list[float]:
    """Return time per step over max(c, r) in each round, for the best way to fetch and the wait worst for it."""
    ways: dict[str, list[list[float]]] = {}
    for name, alone in outcomes.items():
        wait, _, end = name.removeprefix(f"{label}, ").partition(", ")
        if end != _ALONE or not name.startswith(f"{label}, "):
            continue
        for both_name, both in outcomes.items():
            begin = f"{label}, {wait}, "
            if not both_name.startswith(begin) or both_name == name:
                continue
            reading = outcomes[f"{label}, {both_name.removeprefix(begin)}"]
            rates = zip(both.rates, alone.rates, reading.rates, strict=True)
            each = [min(c, r) / t for t, c, r in rates]  # of rates, hence of one over times
            ways.setdefault(both_name.removeprefix(begin), []).append(each)
    worst = [max(each, key=_middle) for each in ways.values() if all(each)]
    return min(worst, key=_middle, default=[])


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("inf")
