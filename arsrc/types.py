"""What moves, and what it brings: `SourceState` and `Batch`."""

import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from arsrc.codecs.element_tree import tree_text
from arsrc.errors import ArsrcTypeError, ArsrcValueError

Array = jax.Array

_MOST_SECONDS = 0.05
"""So long a repr waits for a number that a device computes, which may be at the end of a queue."""


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

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(getattr(self, name))}" for name in ("epoch", "index"))
        return f"SourceState({', '.join(shown)})"


@chex.dataclass(frozen=True)
class Batch:
    """Elements stacked on a leading axis.

    Attributes:
        data: PyTree of `element_spec` with leaves `[batch_size, ...]`; zero where `mask` is False.
        mask: Whether the row holds a record; with `on_bad_record="mask"`, one that could be read.
        record_ids: Which record the row holds; 2**32 - 1 where `mask` is False.
        epochs: Which epoch the row belongs to, also where `mask` is False; 0 from `take`, which knows of none.
    """

    data: Any  # PyTree[batch_size, ...]
    mask: Array  # bool[batch_size]
    record_ids: Array  # u32[batch_size]
    epochs: Array  # u32[batch_size]

    def __repr__(self) -> str:
        mask = _at_hand(self.mask)
        valid = f"mask={_shown(self.mask)}" if mask is None or mask.dtype != bool else f"num_valid={mask.sum()}"
        return f"Batch(data={_shown(self.data)}, {valid})"


def check_state(where: str, state: Any) -> None:
    """Refuse what is no single state.

    Raises:
        ArsrcTypeError: `state` is none, or a stack of states, as an ensemble has.
        ArsrcValueError: Its arrays are deleted.
    """
    if not isinstance(state, SourceState):
        fix = "Arguments are the config, then a state: from init, or the first of what next_batch gives."
        raise ArsrcTypeError(where, "state is no SourceState", fix, state=type(state).__name__)
    if shape := jnp.shape(state.index):
        fix = "Use jax.vmap, or take them one by one: jax.tree.map(lambda leaf: leaf[i], states)."
        raise ArsrcTypeError(where, "takes one state, and this is a stack of them", fix, shape=shape)
    if any(is_deleted(leaf) for leaf in (state.index, state.epoch, state.key)):
        what = "the state is deleted: it was donated to a function that was called with it"
        fix = "Go on with the state that this function gave; or make it again, say by state_at(config, step)."
        raise ArsrcValueError(where, what, fix)


def is_deleted(leaf: Any) -> bool:
    """Whether an array was deleted, as by donating it."""
    return not isinstance(leaf, jax.core.Tracer) and isinstance(leaf, jax.Array) and leaf.is_deleted()


def check_batch(where: str, batch: Any) -> None:
    """Raise `ArsrcTypeError` unless `batch` is a `Batch`."""
    if not isinstance(batch, Batch):
        fix = "Arguments are the config, a state, then a batch, as next_batch or a loop gives it."
        raise ArsrcTypeError(where, "batch is no Batch", fix, batch=type(batch).__name__)


def _shown(tree: Any) -> str:
    """Return the number where there is one and nobody has to wait for it, else dtypes and shapes."""
    number = _at_hand(tree)
    if number is not None and number.ndim == 0:
        return str(number)
    try:
        return tree_text(tree)
    except Exception:  # a tree of anything, in the middle of any transformation
        return f"<{type(tree).__name__}>"


def _at_hand(leaf: Any) -> np.ndarray | None:
    """Return the value of an array unless it takes long; None of whatever else may stand in its place."""
    end = time.monotonic() + _MOST_SECONDS
    try:
        # Deleted ones first: asked whether one of them is ready, JAX ends the process.
        while not isinstance(leaf, (np.ndarray, np.generic)) and (leaf.is_deleted() or not leaf.is_ready()):
            if leaf.is_deleted() or time.monotonic() > end:
                return None
            time.sleep(_MOST_SECONDS / 100)
        return np.asarray(leaf)
    except Exception:  # no array, a traced or a deleted one, parts of it with other processes, transfers forbidden
        return None
