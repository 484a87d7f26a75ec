"""What moves, and what it brings: `SourceState` and `Batch`."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from arsrc.errors import ArsrcTypeError

Array = jax.Array


@chex.dataclass(frozen=True)
class SourceState:
    """Where a stream stands: 16 bytes (24 with a four-word key) at any size of the data.

    Attributes:
        index: Position in this epoch of the next record to serve.
        epoch: Whole passes that lie behind; counts modulo 2**32 if endless.
        key: Key of the order, the same from the first step to the last.
    """

    index: Array  # u32[]
    epoch: Array  # u32[]
    key: Array  # key[]


@chex.dataclass(frozen=True)
class Batch:
    """Elements stacked on a leading axis.

    Attributes:
        data: PyTree of `element_spec` with leaves `[batch_size, ...]`; zero where `mask` is False.
        mask: Whether the row holds a record.
        record_ids: Which record the row holds; 2**32 - 1 where `mask` is False.
    """

    data: Any  # PyTree[batch_size, ...]
    mask: Array  # bool[batch_size]
    record_ids: Array  # u32[batch_size]


def check_state(where: str, state: Any) -> None:
    """Refuse what is no single state.

    Raises:
        ArsrcTypeError: `state` is none, or a stack of states, as an ensemble has.
    """
    if not isinstance(state, SourceState):
        fix = "Arguments are the config, then a state: from init, or the first of what next_batch gives."
        raise ArsrcTypeError(where, "state is no SourceState", fix, state=type(state).__name__)
    if shape := jnp.shape(state.index):
        fix = "Use jax.vmap, or take them one by one: jax.tree.map(lambda leaf: leaf[i], states)."
        raise ArsrcTypeError(where, "takes one state, and this is a stack of them", fix, shape=shape)
