"""Requests to batches: the order of an epoch, computed on the host from the device's definition."""

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.stopping import Stop
from arsrc._host.records.elements import Elements
from arsrc._host.records.leaves import Leaves
from arsrc._host.records.mixed_elements import MixedElements
from arsrc._host.serving.requests import Loaded, Planned, Request
from arsrc.order import arithmetic, record_order
from arsrc.order.plan import PAD_ID, Plan

Array = NDArray[Any]


class Rows(NamedTuple):
    """What the rows of consecutive requests hold; all arrays [num_requests, num_states, num_batches, num_rows].

    Attributes:
        ids: u32[...], record ids, the padding id in rows that are not valid.
        epochs: u32[...], the last axis may have one entry for all.
        whole: Whether all rows of each request are valid.
        located: Where the records lie, for all rows in a line; None if they cannot be copied from there.
    """

    ids: Array
    epochs: Array
    whole: list[bool]
    located: Located | None


class Loader:
    """Plans, locates and loads the requests of one source.

    Args:
        plan: The static numbers.
        elements: Where records come from.
        masks: Whether a bad record is a masked row, and no error.
    """

    def __init__(self, plan: Plan, elements: Elements | MixedElements, masks: bool) -> None:
        self._plan, self._elements, self._masks = plan, elements, masks
        self._label = f"arsrc: load batches{elements.label}"

    def plan(self, request: Request, count: int) -> Planned:
        """Return `request` and the `count - 1` after it; fewer where the streams of all its members end."""
        steps = [request.num_batches * ahead for ahead in range(1, count + 1)]
        index, epoch = arithmetic.advance(np, self._plan, *_states([request]), np.array(steps, np.uint32))
        states = zip(index[0].T.tolist(), epoch[0].T.tolist(), strict=True)
        later = [_with_states(request, *state) for state in states]
        exhausted = arithmetic.is_end(np, self._plan, index[0], epoch[0]).all(axis=0)  # bool[count]
        if exhausted.any():
            later = later[: int(exhausted.argmax()) + 1]
        return Planned([request, *later[:-1]], later[-1], bool(exhausted[len(later) - 1]))

    def is_exhausted(self, request: Request) -> bool:
        """Whether the end of the stream lies behind all members of a request."""
        if self._plan.num_epochs < 0:
            return False
        settled = arithmetic.settle(np, self._plan, *_states([request]))
        return bool(arithmetic.is_end(np, self._plan, *settled).all())

    def num_left(self, request: Request) -> int:
        """Return how many batches of a request lie before the end of the stream."""
        if self._plan.num_epochs < 0:
            return request.num_batches
        index, epoch = _states([request])

        def is_past(steps: int) -> bool:
            after = arithmetic.advance(np, self._plan, index, epoch, steps)
            return bool(arithmetic.is_end(np, self._plan, *after).all())

        num_batches = request.num_batches
        return bisect.bisect_left(range(num_batches), True, key=is_past) if is_past(num_batches) else num_batches

    def locate(self, requests: Sequence[Request]) -> Rows:
        """Return what the rows of consecutive requests hold."""
        first = requests[0]
        steps = np.arange(first.num_batches, dtype=np.uint32)
        index, epoch = arithmetic.advance(np, self._plan, *_states(requests), steps)  # u32[requests, states, batches]
        row = np.arange(first.first_row, first.first_row + first.num_rows, dtype=np.uint32)
        position, epoch, valid = arithmetic.rows(np, self._plan, index, epoch, row)
        members = [
            record_order.rows_at(np, self._plan, words, epoch[:, member], position[:, member], valid[:, member])
            for member, words in enumerate(_key_words(first))
        ]
        ids, valid, epoch = (np.stack(found, 1) for found in zip(*members, strict=True))
        whole: Any = valid.all((1, 2, 3))  # bool[num_requests]
        one_member = len(first.states) == 1
        located = self._elements.locate(np.where(valid, ids, np.uint32(0))) if one_member else None
        return Rows(ids, epoch, whole.tolist(), located)

    def load(
        self, planned: Planned, rows: Rows, first: int, last: int, outs: Leaves | None = None, stop: Stop | None = None
    ) -> list[Loaded | None]:
        """Load the requests `[first, last)` of some that are planned.

        Of several, those that hold a bad record are None where that is an error: it is that of the request alone.

        Args:
            planned: The requests.
            rows: What `locate` gives for them.
            first: Number of the first one that is wanted.
            last: Number of the first one behind that is not.
            outs: For a single request, arrays like the leaves that it brings, which may be used for them.
            stop: Says whether to end between two records.

        Raises:
            Stopped: `stop` said so.
        """
        masks = self._masks or last - first > 1
        with profile.annotate(self._label):
            ids, epochs = rows.ids[first:last], rows.epochs[first:last]
            if rows.located is not None and all(rows.whole[first:last]):
                size = planned.requests[0].num_elements
                leaves = self._elements.copy(rows.located.part(first * size, last * size), ids, outs, stop, masks)
            elif ids.shape[1] > 1:
                leaves = self._elements.read_once(ids, stop, masks)
            else:
                leaves = self._elements.read(ids, stop, masks, outs)
        after = [*planned.requests, planned.after][first + 1 : last + 1]
        are_good = [True] * (last - first)
        if masks and not self._masks:
            *leaves, held = leaves
            are_good = (held == (ids != PAD_ID)).all((1, 2, 3)).tolist()
        return [
            Loaded([leaf[row] for leaf in leaves], ids[row], epochs[row], after[row]) if is_good else None
            for row, is_good in enumerate(are_good)
        ]


def _key_words(request: Request) -> list[Array]:
    """Return the words of each member that the order depends on, u32[num_words]."""
    return [np.array(state[2:], np.uint32) for state in request.states]


def _with_states(request: Request, index: Sequence[int], epoch: Sequence[int]) -> Request:
    """Return `request` with its members standing elsewhere."""
    states, *rest = request
    members = zip(index, epoch, states, strict=True)
    return Request(tuple([(i, e, *state[2:]) for i, e, state in members]), *rest)


def _states(requests: Sequence[Request]) -> tuple[Array, Array]:
    """Return (index, epoch) of each request's members, u32[num_requests, num_states, 1]."""
    states = np.array([[state[:2] for state in request.states] for request in requests], np.uint32)
    return states[..., :1], states[..., 1:]
