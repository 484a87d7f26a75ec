"""Statistics: of what was served (derived from states), and of what the data set holds."""

import dataclasses
from typing import Any

import jax
import numpy as np

from arsrc._host import registry
from arsrc.any_config import AnyConfig
from arsrc.errors import ArsrcTypeError
from arsrc.mixtures import source_counts
from arsrc.order.plan import PAD_ID
from arsrc.types import SourceState, check_state


@dataclasses.dataclass(frozen=True, eq=False)
class LeafStatistics:
    """Statistics over all records, element by element of one leaf.

    Attributes:
        count: Number of records.
        mean: f64[leaf.shape].
        variance: f64[leaf.shape], of the population.
        min: dtype[leaf.shape].
        max: dtype[leaf.shape].
    """

    count: int
    mean: np.ndarray
    variance: np.ndarray
    min: np.ndarray
    max: np.ndarray


def operation_stats(config: AnyConfig, state: SourceState, since: SourceState | None = None) -> dict[str, int]:
    """Return how many records were served and passed over, from the states alone; host.

    Args:
        config: The source.
        state: The state now.
        since: The state to count from; defaults to the first. Passing a later one is the "reset".

    Returns:
        `{"applied_count", "skipped_count"}`, exact integers; of a mixture, over all its sources. Excluded records count
        like others: they are served as padding.
    """
    for one in (state,) if since is None else (state, since):
        check_state("operation_stats", one)
    if isinstance(state.index, jax.core.Tracer):
        raise ArsrcTypeError("operation_stats", "runs on the host, not inside a JAX transformation")
    plan = registry.source(config).plan
    if plan.mixture is not None:
        served = [sum(source_counts(config, one)) for one in (state, *([] if since is None else [since]))]
        return {"applied_count": served[0] - sum(served[1:]), "skipped_count": 0}
    passed = plan.num_records - plan.steps_per_epoch * plan.batch_size if plan.remainder == "drop" else 0

    def counts(state: SourceState) -> np.ndarray:
        epoch = int(state.epoch)
        return np.array([epoch * (plan.num_records - passed) + int(state.index), epoch * passed], object)

    applied, skipped = counts(state) - (counts(since) if since is not None else np.array([0, 0], object))
    return {"applied_count": applied, "skipped_count": skipped}


def compute_statistics(config: AnyConfig, data: Any) -> Any:
    """Return `config.batch_stats_fn(data)`, None without one; the caller keeps the value.

    Args:
        config: The source.
        data: What the function takes: a batch's data, usually.
    """
    return None if config.batch_stats_fn is None else config.batch_stats_fn(data)


def get_statistics(config: AnyConfig, computed: Any = None) -> Any:
    """Return a copy of the `precomputed_stats` that the config was made with, else `computed`.

    Args:
        config: The source.
        computed: What `compute_statistics` gave, None if nothing was computed.

    Returns:
        A dict equal to the mapping that was given, with arrays of its own; or `computed` as it is.
    """
    if config.precomputed_stats is None:
        return computed
    with jax.ensure_compile_time_eval():
        return dict(config.precomputed_stats)


def dataset_statistics(config: AnyConfig) -> Any:
    """Read every record once, and compute statistics over all of them; host.

    Means and variances are merged in float64 (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances, 1979).

    Returns:
        The tree of `element_spec` with a `LeafStatistics` for each leaf; excluded and masked records do not count.

    Raises:
        ArsrcReadError: A record cannot be read.
        ArsrcValueError: A record does not fit the codec.
    """
    host = registry.source(config, strict=True)
    totals: list[LeafStatistics] = []
    for ids in host.spans("dataset_statistics"):
        ids = ids[ids != PAD_ID]
        if not len(ids):
            continue
        leaves = host.elements.read(ids, masks=host.masks)
        if host.masks:
            *leaves, good = leaves
            if not good.any():
                continue
            leaves = [leaf[good] for leaf in leaves]
        parts = [_of(leaf) for leaf in leaves]
        totals = [_merged(a, b) for a, b in zip(totals, parts, strict=True)] if totals else parts
    return jax.tree.unflatten(jax.tree.structure(host.schema.codec.element_spec()), totals)


def _of(leaf: np.ndarray) -> LeafStatistics:
    wide = leaf.astype(np.complex128 if leaf.dtype.kind == "c" else np.float64)
    return LeafStatistics(len(leaf), wide.mean(0), wide.var(0), leaf.min(0), leaf.max(0))


def _merged(a: LeafStatistics, b: LeafStatistics) -> LeafStatistics:
    count = a.count + b.count
    delta = b.mean - a.mean
    variance = (a.count * a.variance + b.count * b.variance) / count
    variance = variance + np.abs(delta) ** 2 * (a.count * b.count / count**2)
    return LeafStatistics(
        count,
        a.mean + delta * (b.count / count),
        variance,
        np.minimum(a.min, b.min),
        np.maximum(a.max, b.max),
    )
