"""What is asked of mixtures alone: which rows of which source lie behind, and which source a row is of."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arsrc._host import registry
from arsrc.any_config import AnyConfig
from arsrc.errors import ArsrcTypeError, ArsrcValueError, sides
from arsrc.mixture_config import MixtureConfig
from arsrc.order.mixture import rows_before, source_of
from arsrc.order.plan import PAD_ID, Plan
from arsrc.programs import compiled_for_each
from arsrc.state import padded_ids
from arsrc.types import SourceState, check_state

Array = jax.Array


def source_counts(config: AnyConfig, state: SourceState) -> tuple[int, ...]:
    """Return how many rows of each source were served before `state`, exactly; host.

    Excluded rows count, and bad ones that are masked. Of a config that is no mixture it is one number, without the rows
    that `remainder="drop"` passes over.

    Args:
        config: The source.
        state: A state of it; not traced.

    Returns:
        One integer for each source.

    Raises:
        ArsrcTypeError: The state is traced.
    """
    check_state("source_counts", state)
    if isinstance(state.index, jax.core.Tracer):
        raise ArsrcTypeError("source_counts", "runs on the host, not inside a JAX transformation")
    plan = registry.source(config).plan
    if plan.mixture is None:
        rest = plan.num_records % plan.batch_size if plan.remainder == "drop" else 0
        return (int(state.epoch) * (plan.num_records - rest) + int(state.index),)
    rows = zip(rows_before(plan.mixture, slot_of(plan, state)), plan.mixture.sources, strict=True)
    return tuple(count if one.num_epochs < 0 else min(count, one.num_epochs * one.num_records) for count, one in rows)


def source_ids(config: AnyConfig, record_ids: Any) -> Array:
    """Return u32[...], the number of the source that each record of a mixture is of; 2**32 - 1 of the padding id.

    Args:
        config: The source.
        record_ids: integer[...] as in `batch.record_ids`; may be traced.

    Raises:
        ArsrcIndexError: An id is not in the data set (where it is not traced).
    """
    plan = registry.source(config).plan
    ids = padded_ids("source_ids", record_ids, plan.num_records)
    return _source_ids(plan, ids.shape, ids)


@compiled_for_each(2)
def _source_ids(plan: Plan, shape: tuple[int, ...], ids: Array) -> Array:
    del shape
    found = jnp.zeros_like(ids) if plan.mixture is None else source_of(jnp, plan.mixture, ids)
    return jnp.where(ids == np.uint32(PAD_ID), np.uint32(PAD_ID), found)


def slot_of(plan: Plan, state: SourceState) -> int:
    """Return how many slots of a mixture lie before a state, those of all epochs."""
    return int(state.epoch) * plan.num_records + int(state.index)


def check_resumed(config: MixtureConfig, plan: Plan, state: SourceState, state_dict: Mapping[str, Any]) -> None:
    """Refuse a state of a mixture unless its sources stand where they stood, perhaps with other weights from there on.

    Raises:
        ArsrcValueError: With the stages of the config, its sources would stand elsewhere; or the state is damaged.
    """
    mixture = plan.mixture
    assert mixture is not None
    slot, (counts, stages) = slot_of(plan, state), _saved(state_dict)
    here = rows_before(mixture, slot)
    if counts != here:
        raise ArsrcValueError(
            "from_state_dict",
            "with these weights the sources would have served other rows than they have",
            _advice(config, slot, stages) + sides(saved=str(counts), config=str(here)),
        )


def _saved(state_dict: Mapping[str, Any]) -> tuple[list[int], list[tuple[int, list[float]]]]:
    try:
        counts = [_whole(count) for count in state_dict["source_rows"]]
        stages = [(_whole(start), [float(weight) for weight in weights]) for start, weights in state_dict["stages"]]
        if not stages:
            raise ValueError("there are no stages")
    except Exception as error:  # of whatever stands there
        what = f"is no state of a mixture ({type(error).__name__}: {error})"
        raise ArsrcValueError("from_state_dict", what, "Use to_state_dict.") from error
    return counts, stages


def _whole(number: Any) -> int:
    """Return a number of rows, which may have more than 32 bits."""
    none: Any = None  # which is no number
    return operator.index(none if isinstance(number, bool | np.bool_) else number)


def _advice(config: MixtureConfig, row: int, stages: list[tuple[int, list[float]]]) -> str:
    size = config.batch_size
    if row % size or any(start % size for start, _ in stages if start < row):
        return f"What was served must stay as it was, and {row} rows are no whole number of batches of {size}:"
    behind = "".join(f"({start // size}, {tuple(weights)}), " for start, weights in stages if start < row)
    return f"Keep what lies behind, and give other weights from here on: stages=({behind}({row // size}, (...))):"
