"""Ratios of what contestants of one race did, round by round."""

from collections.abc import Callable, Mapping

from _harness import Outcome

Outcomes = Mapping[str, Outcome]
Ratios = Callable[[Outcomes], list[float]]


def rates(*ours: str, over: str | tuple[str, ...]) -> Ratios:
    """Return the ratio of our best rate to the best of the others, who are told by how their names begin."""
    return _ratios(ours, (over,) if isinstance(over, str) else over, lambda outcome: outcome.rates)


def cpu_seconds(*ours: str, over: str) -> Ratios:
    """Return the ratio of CPU times per record, of those with the best rates."""
    return _ratios(ours, (over,), lambda outcome: outcome.cpu_seconds)


def times(ours: str, over: str) -> Ratios:
    """Return the ratio of our time for the same records to the other's."""
    return rates(over, over=ours)


def _ratios(ours: tuple[str, ...], over: tuple[str, ...], figure: Callable[[Outcome], list[float]]) -> Ratios:
    def ratios(outcomes: Outcomes) -> list[float]:
        us, them = _best(outcomes, ours), _best(outcomes, over)
        if us is None or them is None:
            return []
        return [a / b for a, b in zip(figure(us), figure(them), strict=True)]

    return ratios


def _best(outcomes: Outcomes, names: tuple[str, ...]) -> Outcome | None:
    """Return what the one with the best median did, among those whose names begin like this."""
    found = [outcome for name, outcome in outcomes.items() if name.startswith(names) and outcome.median]
    return max(found, key=lambda outcome: outcome.median, default=None)
