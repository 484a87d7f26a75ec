"""Requests to batches: the order of an epoch, computed on the host from the device's definition."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc import arithmetic, block_order, order
from arsrc._host import profile
from arsrc._host.elements import Elements
from arsrc._host.metrics import Metrics
from arsrc._host.requests import Leaves, Loaded, Request
from arsrc._host.slabs import Slabs
from arsrc._host.windows import Windows
from arsrc.order import Plan

Array = NDArray[Any]


class Batches:
    """Loads requests.

    Args:
        plan: The static numbers.
        elements: Where records come from.
        windows: Keeps decoded windows of a block order; None reads records one by one.
        metrics: Where reading is counted.
    """

    def __init__(self, plan: Plan, elements: Elements, windows: Windows | None, metrics: Metrics) -> None:
        self._plan, self._elements, self._windows, self._metrics = plan, elements, windows, metrics
        self._record_at = functools.partial(order.record_at, np, plan)
        self._slabs = Slabs(self._record_at, plan.num_records)

    def load(self, requests: Sequence[Request]) -> list[Loaded]:
        """Load requests of one stream, which differ in their states' index and epoch alone, together."""
        with self._metrics.timed("seconds_read"), profile.annotate("arsrc: load batches"):
            position, epoch, valid = self._rows(requests)
            members = range(len(requests[0].states))
            key_words = [np.array(state[2:], np.uint32) for state in requests[0].states]
            ids = np.empty(position.shape, np.uint32)  # u32[num_requests, num_states, num_batches, num_rows]
            # A single batch is wanted at once; more of them are the beginning of a run.
            record_at = self._record_at if len(requests) == 1 else self._slabs.record_at
            for member in members:
                at = np.s_[:, member]
                ids[at] = record_at(key_words[member], epoch[at], position[at])
            ids, valid = order.served(np, self._plan, ids, valid)
            if self._windows is not None:
                each = [self._by_window(key_words[m], position[:, m], epoch[:, m], valid[:, m]) for m in members]
                leaves = [np.stack(leaf, axis=1) for leaf in zip(*each, strict=True)]
            elif len(members) > 1:
                leaves = self._elements.read_once(ids)
            else:
                leaves = self._elements.read(ids)
        after = self._after(requests)
        return [Loaded([leaf[row] for leaf in leaves], ids[row], after[row]) for row in range(len(requests))]

    def following(self, request: Request, count: int) -> list[Request]:
        """Return the `count` requests after `request`; fewer where the last epoch of all its members ends."""
        later = self._later(request, [request.num_batches * ahead for ahead in range(1, count + 1)])
        return [one for one in later if not self.is_exhausted(one)]

    def is_exhausted(self, request: Request) -> bool:
        """Whether the last epoch lies behind all members of a request."""
        if self._plan.num_epochs < 0:
            return False
        _, epoch = arithmetic.settle(np, self._plan, *_states([request]))
        return bool((epoch == self._plan.num_epochs).all())

    def _later(self, request: Request, steps: Sequence[int]) -> list[Request]:
        """Return `request` as it is `steps` batches later."""
        index, epoch = arithmetic.advance(np, self._plan, *_states([request]), np.array(steps, np.uint32))
        states = zip(index[0].T.tolist(), epoch[0].T.tolist(), strict=True)
        return [_with_states(request, *state) for state in states]

    def _after(self, requests: Sequence[Request]) -> list[Request]:
        """Return what follows each of some requests of one stream."""
        index, epoch = arithmetic.advance(np, self._plan, *_states(requests), requests[0].num_batches)
        states = zip(requests, index[..., 0].tolist(), epoch[..., 0].tolist(), strict=True)
        return [_with_states(*state) for state in states]

    def _rows(self, requests: Sequence[Request]) -> tuple[Array, Array, Array]:
        """Return `(position, epoch, valid)`, [num_requests, num_states, num_batches, num_rows]; epoch may have 1."""
        first = requests[0]
        steps = np.arange(first.num_batches, dtype=np.uint32)
        index, epoch = arithmetic.advance(np, self._plan, *_states(requests), steps)  # u32[requests, states, batches]
        position, epoch, valid = arithmetic.rows(np, self._plan, index, epoch)
        rows = slice(first.first_row, first.first_row + first.num_rows)
        return position[..., rows], epoch if epoch.shape[-1] == 1 else epoch[..., rows], valid[..., rows]

    def _by_window(self, key_words: Array, position: Array, epoch: Array, valid: Array) -> Leaves:
        """Return leaves `[*position.shape, ...]`, taken out of whole windows."""
        blocks = self._plan.blocks
        assert blocks is not None and self._windows is not None
        slot = block_order.slot_of(np, blocks, key_words, epoch, position)
        epoch = np.broadcast_to(epoch, slot.shape)
        window, row = np.divmod(slot, np.uint32(blocks.window_size))
        leaves = [np.zeros((*slot.shape, *shape), dtype) for shape, dtype in self._elements.shapes]
        wanted = np.stack([epoch[valid], window[valid]], axis=-1)  # u32[num_valid, 2]
        for one_epoch, one in np.unique(wanted, axis=0):

            def load(one_epoch: Any = one_epoch, one: Any = one) -> Leaves:
                first = int(one) * blocks.window_size
                slots = np.arange(first, min(first + blocks.window_size, blocks.num_records), dtype=np.uint32)
                ids = block_order.record_in_slot(np, blocks, key_words, one_epoch[None], slots)
                return self._elements.read(order.served(np, self._plan, ids, np.ones(len(ids), bool))[0])

            whole = self._windows.get((key_words.tobytes(), int(one_epoch), int(one)), load)
            here = valid & (epoch == one_epoch) & (window == one)
            for leaf, found in zip(leaves, whole, strict=True):
                leaf[here] = found[row[here]]
        return leaves


def _with_states(request: Request, index: Sequence[int], epoch: Sequence[int]) -> Request:
    """Return `request` with its members standing elsewhere."""
    members = zip(index, epoch, request.states, strict=True)
    return request._replace(states=tuple((i, e, *state[2:]) for i, e, state in members))


def _states(requests: Sequence[Request]) -> tuple[Array, Array]:
    """Return (index, epoch) of each request's members, u32[num_requests, num_states, 1]."""
    states = np.array([[state[:2] for state in request.states] for request in requests], np.uint32)
    return states[..., :1], states[..., 1:]
