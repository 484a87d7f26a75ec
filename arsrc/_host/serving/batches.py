"""Requests to batches: the order of an epoch, computed on the host from the device's definition."""

import collections
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.once import Once
from arsrc._host.records.elements import Elements
from arsrc._host.records.leaves import Leaves
from arsrc._host.records.windows import Windows
from arsrc._host.serving.requests import Loaded, Request
from arsrc._host.serving.slabs import Slabs
from arsrc.order import arithmetic, record_order
from arsrc.order import blocks as block_order
from arsrc.order.plan import Plan

Array = NDArray[Any]

_STRETCH_ROWS = 16_384
_KEPT_ROWS = 2**18
_KEPT_REQUESTS = 2**14
_KEPT_STRETCHES = 3  # at least: the one being loaded, the next, and what it grew from
_EPOCHS_IN_SLABS = 4


class Stretch:
    """Consecutive requests of one stream: what their rows hold is computed together, when it is first wanted.

    Attributes:
        requests: The requests, as many as there are before the last epoch ends, but at least one.
        after: The request that follows the last of them, exhausted or not.
        ended: Whether it is exhausted.
        rows: What the rows hold.
    """

    def __init__(
        self, requests: list[Request], after: Request, ended: bool, rows: Callable[[Sequence[Request]], "Rows"]
    ) -> None:
        self.requests, self.after, self.ended = requests, after, ended
        self.rows = Once(lambda: rows(requests))

    @property
    def num_rows(self) -> int:
        """Rows of all requests."""
        return len(self.requests) * self.requests[0].num_elements


class Rows(NamedTuple):
    """What the rows of consecutive requests hold; all arrays [num_requests, num_states, num_batches, num_rows].

    Attributes:
        ids: u32[...], record ids, the padding id in rows that are not valid.
        whole: Whether all rows of each request are valid.
        located: Where the records lie, for all rows in a line; None if they cannot be copied from there.
        places: Position, epoch (its last axis may have one entry for all) and validity, for reading by window.
    """

    ids: Array
    whole: list[bool]
    located: Located | None
    places: tuple[Array, Array, Array] | None


class Batches:
    """Loads requests.

    Args:
        plan: The static numbers.
        elements: Where records come from.
        windows: Keeps decoded windows of a block order; None reads records one by one.
        metrics: Where reading is counted.
        label: What profiles add to the name of a load.
    """

    def __init__(
        self, plan: Plan, elements: Elements, windows: Windows | None, metrics: Metrics, label: str = ""
    ) -> None:
        self._plan, self._elements, self._windows, self._metrics = plan, elements, windows, metrics
        self._label = f"arsrc: load batches{label}"
        self._record_at = functools.partial(record_order.record_at, np, plan)
        self._slabs = Slabs(self._record_at, plan.num_records)
        self._lock = threading.Lock()
        self._stretches: collections.deque[Stretch] = collections.deque()
        self._places: dict[Request, tuple[Stretch, int]] = {}  # also of the request behind a stretch

    def load(self, requests: Sequence[Request], outs: Leaves | None = None) -> list[Loaded]:
        """Load some requests together, best consecutive ones of one stream.

        Args:
            requests: The requests.
            outs: For a single request, arrays like the leaves that it brings, which may be used for them.
        """
        with self._metrics.timed("seconds_read"), profile.annotate(self._label):
            loaded: list[Loaded] = []
            while len(loaded) < len(requests):
                rest = requests[len(loaded) :]
                stretch, first = self._find(rest[0], len(rest))
                known = stretch.requests[first : first + len(rest)]
                count = next((row for row, one in enumerate(known) if one != rest[row]), len(known))
                loaded += self._load(stretch, first, first + count, outs)
            return loaded

    def following(self, request: Request, count: int) -> list[Request]:
        """Return the `count` requests after `request`; fewer where the last epoch of all its members ends."""
        found: list[Request] = []
        while len(found) < count:
            stretch, row = self._find(request, count - len(found))
            found += stretch.requests[row + 1 : row + 1 + count - len(found)]
            if len(found) < count:
                if stretch.ended:
                    break
                found.append(stretch.after)
            request = found[-1]
        return found

    def is_exhausted(self, request: Request) -> bool:
        """Whether the last epoch lies behind all members of a request."""
        if self._plan.num_epochs < 0:
            return False
        _, epoch = arithmetic.settle(np, self._plan, *_states([request]))
        return bool((epoch == self._plan.num_epochs).all())

    def _find(self, request: Request, count: int) -> tuple[Stretch, int]:
        """Return the stretch that holds `request`, and its row in it; a new one holds `count` requests or more."""
        with self._lock:
            stretch, row = self._places.get(request, (None, 0))
        if stretch is not None and row < len(stretch.requests):
            return stretch, row
        if stretch is not None:  # a run goes on
            most = max(1, _STRETCH_ROWS // max(1, request.num_elements))
            count = max(count, min(2 * len(stretch.requests), most))
        stretch = self._stretch(request, count)
        with self._lock:
            self._stretches.append(stretch)
            self._places.setdefault(stretch.after, (stretch, len(stretch.requests)))
            self._places |= {one: (stretch, row) for row, one in enumerate(stretch.requests)}
            self._forget()
        return stretch, 0

    def _forget(self) -> None:
        while len(self._stretches) > _KEPT_STRETCHES and (
            sum(stretch.num_rows for stretch in self._stretches) > _KEPT_ROWS or len(self._places) > _KEPT_REQUESTS
        ):
            oldest = self._stretches.popleft()
            for one in (*oldest.requests, oldest.after):
                if one in self._places and self._places[one][0] is oldest:
                    del self._places[one]

    def _stretch(self, request: Request, count: int) -> Stretch:
        steps = [request.num_batches * ahead for ahead in range(1, count + 1)]
        index, epoch = arithmetic.advance(np, self._plan, *_states([request]), np.array(steps, np.uint32))
        states = zip(index[0].T.tolist(), epoch[0].T.tolist(), strict=True)
        later = [_with_states(request, *state) for state in states]
        exhausted = (epoch[0] == self._plan.num_epochs).all(axis=0) & (self._plan.num_epochs >= 0)  # bool[count]
        if exhausted.any():
            later = later[: int(exhausted.argmax()) + 1]
        return Stretch([request, *later[:-1]], later[-1], bool(exhausted[len(later) - 1]), self._rows)

    def _load(self, stretch: Stretch, first: int, last: int, outs: Leaves | None) -> list[Loaded]:
        """Load the requests `[first, last)` of a stretch."""
        rows = stretch.rows.get()
        ids = rows.ids[first:last]
        if rows.located is not None and all(rows.whole[first:last]):
            size = stretch.requests[0].num_elements
            leaves = self._elements.copy(rows.located.part(first * size, last * size), ids, outs)
        elif rows.places is not None:
            leaves = self._by_window(stretch.requests[0], [place[first:last] for place in rows.places])
        elif ids.shape[1] > 1:
            leaves = self._elements.read_once(ids)
        else:
            leaves = self._elements.read(ids)
        after = [*stretch.requests[first + 1 : last + 1], stretch.after]
        return [Loaded([leaf[row] for leaf in leaves], ids[row], after[row]) for row in range(last - first)]

    def _rows(self, requests: Sequence[Request]) -> Rows:
        first = requests[0]
        steps = np.arange(first.num_batches, dtype=np.uint32)
        index, epoch = arithmetic.advance(np, self._plan, *_states(requests), steps)  # u32[requests, states, batches]
        row = np.arange(first.first_row, first.first_row + first.num_rows, dtype=np.uint32)
        position, epoch, valid = arithmetic.rows(np, self._plan, index, epoch, row)
        # A single request is wanted at once; more of them are the beginning of a run, but hardly of many epochs.
        is_run = len(requests) > 1 and position.size <= _EPOCHS_IN_SLABS * self._plan.num_records
        record_at = self._slabs.record_at if is_run else self._record_at
        ids = np.empty(position.shape, np.uint32)
        for member, key_words in enumerate(_key_words(first)):
            at = np.s_[:, member]
            ids[at] = record_at(key_words, epoch[at], position[at])
        ids, valid = record_order.served(np, self._plan, ids, valid)
        whole = valid.all((1, 2, 3)).tolist()
        if self._windows is not None:
            return Rows(ids, whole, None, (position, epoch, valid))
        one_member = len(first.states) == 1
        located = self._elements.locate(np.where(valid, ids, np.uint32(0))) if one_member else None
        return Rows(ids, whole, located, None)

    def _by_window(self, request: Request, places: Sequence[Array]) -> Leaves:
        """Return leaves `[num_requests, num_states, num_batches, num_rows, ...]`, taken out of whole windows."""
        each = [
            self._member_by_window(key_words, *(place[:, member] for place in places))
            for member, key_words in enumerate(_key_words(request))
        ]
        return [np.stack(leaf, axis=1) for leaf in zip(*each, strict=True)]

    def _member_by_window(self, key_words: Array, position: Array, epoch: Array, valid: Array) -> Leaves:
        """Return leaves `[*position.shape, ...]`."""
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
                return self._elements.read(record_order.served(np, self._plan, ids, np.ones(len(ids), bool))[0])

            whole = self._windows.get((key_words.tobytes(), int(one_epoch), int(one)), load)
            here = valid & (epoch == one_epoch) & (window == one)
            for leaf, found in zip(leaves, whole, strict=True):
                leaf[here] = found[row[here]]
        return leaves


def _key_words(request: Request) -> list[Array]:
    """Return the key words of each member, u32[num_key_words]."""
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
