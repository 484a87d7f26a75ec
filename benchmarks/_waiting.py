"""A race over steps that wait outside the CPU: does reading hide behind them?

With c the time of the waiting step alone and r the time of a step that only reads, both measured in the same
round, perfect overlap takes max(c, r) a step.
"""

import functools
import statistics
from collections.abc import Mapping, Sequence

import _arsrc
import _floors
import _loops
import jax
from _data import DataSet
from _harness import Contestant, Outcome
from _train_step import waiting_step

_ALONE, _WAIT = "no reading", "wait "
ITERATE = 0  # stands for `iterate` among numbers of batches per fetch


def _label(ms: float) -> str:
    return f"{_WAIT}{ms:g} ms"


def contestants(
    data: DataSet, label: str, waits_ms: Sequence[float], fetches: Sequence[int], num_steps: int = 64
) -> list[Contestant]:
    """Return the step alone, reading alone, and both together, for every wait and way to fetch."""
    found = [_reading(data, label, fetch, num_steps) for fetch in fetches]
    for ms in waits_ms:
        body = functools.partial(waiting_step, ms / 1000)
        found.append(_floors.on_device(data, body=body, name=f"{label}, {_label(ms)}, {_ALONE}", num_steps=num_steps))
        for fetch in fetches:
            name = f"{label}, {_label(ms)}"
            if fetch == ITERATE:
                jitted = jax.jit(lambda carry, batch, body=body: body(carry, batch)[0])
                found.append(_loops.iterate(data, name=name, jitted=jitted))
            else:
                found.append(_arsrc.scan(data, fetch, name=name, body=body, num_steps=num_steps))
    return found


def _reading(data: DataSet, label: str, fetch: int, num_steps: int) -> Contestant:
    if fetch == ITERATE:
        return _loops.iterate(data, name=label)
    return _arsrc.scan(data, fetch, name=label, num_steps=num_steps)


def ratios(label: str, outcomes: Mapping[str, Outcome]) -> list[float]:
    """Return time per step over max(c, r) in each round, for the best way to fetch and the wait worst for it.

    Rates stand for times: one is one over the other. Of all ways to fetch, r is that of the fastest.
    """
    found = {name: outcome.rates for name, outcome in outcomes.items() if outcome.median}
    parts = {name: tuple(name.split(", ", 2)) for name in found if name.startswith(f"{label}, ")}
    reading = [found[name] for name, part in parts.items() if not part[1].startswith(_WAIT)]
    ways: dict[str, list[list[float]]] = {}
    for name, part in parts.items():
        if not part[1].startswith(_WAIT) or part[2] == _ALONE:
            continue
        alone = found.get(f"{label}, {part[1]}, {_ALONE}", [])
        rounds = zip(found[name], alone, *reading, strict=False)
        ways.setdefault(part[2], []).append([min(c, max(r)) / t for t, c, *r in rounds if r])
    worst = [max(each, key=statistics.median) for each in ways.values() if all(each)]
    return min(worst, key=statistics.median, default=[])
