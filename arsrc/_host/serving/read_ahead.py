"""Requests served, and loaded on threads before they are asked for, where that is of use."""

import collections
import dataclasses
import functools
import logging
import weakref
from time import perf_counter

from arsrc._host.machine import threads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.locks import LockOfThread, OwnedLock
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.stopping import Stopped
from arsrc._host.machine.threads import Workers
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.leaves import Leaves
from arsrc._host.serving import pacing
from arsrc._host.serving.loading import Loader
from arsrc._host.serving.requests import Loaded, Request
from arsrc._host.serving.runs import Part, Place, Places, Run
from arsrc.errors import ArsrcError

_MAX_RUNS = 16
_IDLE_ROUNDS = 4
_SETTLED = 4  # requests in a row, from which on more may be expected
_LOG = logging.getLogger("arsrc")


@dataclasses.dataclass(eq=False)
class Client:
    """A source whose requests are served.

    Attributes:
        loader: Loads its requests.
        element_bytes: Decoded bytes of one element.
        is_quick: Whether a load copies what lies in memory, and computes and waits for little else.
        ahead: "auto", "always" or "never".
        num_threads: Threads that load for it.
        is_grouped: Whether groups are decoded and kept for it.
        metrics: Where serving is counted.
        places: Where its requests stand.
        expected: What runs that were let go of had expected next.
    """

    loader: Loader
    element_bytes: int
    is_quick: bool
    ahead: str
    num_threads: int
    is_grouped: bool
    metrics: Metrics
    places: Places = dataclasses.field(default_factory=dict)
    expected: "collections.deque[Request]" = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=2 * _MAX_RUNS)
    )


class ReadAhead:
    """Serves the requests of all sources of the same files, and loads on threads those that will follow.

    Results are what `load` gives, with or without reading ahead: a request with a bad record, or of a part that fails
    as a whole, is loaded alone by whoever asks for it, so that an error reaches the step it belongs to.

    The books of runs are changed under a lock. An interrupt in the midst of a change leaves them torn: the next change
    begins anew with empty ones.

    A signal handler that asks in the midst of a change, or while its own thread asks, reads without the books: a thread
    that loads ahead may be waiting for what it has interrupted.

    Args:
        buffers: Memory to be used again, which is given back first where there is too little.
        groups: Decoded groups.
        max_bytes: Most bytes kept, for all sources.

    Attributes:
        runs: Runs and their sources, by when they were last asked for.
    """

    def __init__(self, buffers: BufferPool, groups: GroupCache, max_bytes: int) -> None:
        self._buffers, self._groups, self._max_bytes = buffers, groups, max_bytes
        self._lock = OwnedLock()
        self._asking = LockOfThread()
        self._changing: Client | None = None  # whose change has begun, and not ended
        self._forgets_all = False  # a signal handler wished so in the midst of a change
        self.runs: collections.OrderedDict[Run, Client] = collections.OrderedDict()
        self._num_calls = 0
        self._asked_at = perf_counter()
        self._logged = False
        self._workers = Workers("arsrc-read-ahead", give_way=True, on_idle=self._rest_if_idle)

    def get(self, client: Client, request: Request, outs: Leaves | None = None) -> Loaded:
        """Return what `request` brings; `outs` are arrays like its leaves, which may be used for them."""
        if self._lock.is_mine() or self._asking.lock.is_mine():
            planned = client.loader.plan(request, 1)
            (alone,) = client.loader.load(planned, client.loader.locate(planned.requests), 0, 1, outs)
            assert alone is not None  # one that holds a bad record raises
            return alone
        with self._asking.lock:
            return self._get(client, request, outs)

    def _get(self, client: Client, request: Request, outs: Leaves | None) -> Loaded:
        now = perf_counter()
        with self._lock:
            self._begin_change(client)
            (run, chunk, row), part = self._ask(client, request, now)
            self._changing = None
        is_ready = part is not None and part.has(row)
        try:
            loaded = None if part is None else part.get(row)
            if loaded is None:
                loaded = chunk.load_alone(row, outs)
        finally:
            num_batches = request.num_batches * len(request.states)
            is_here = part is None or part.is_here
            client.metrics.serve(num_batches, now, is_ready=is_ready and not is_here, is_here=is_here)
        run.left_at = perf_counter()
        return loaded

    def is_ready(self, client: Client, request: Request) -> bool:
        """Whether `get(client, request)` would hardly have to wait."""
        with self._lock:
            place = client.places.get(request)
            if self._changing is not None or place is None or (place.is_behind and place.run.ended):
                return False
            part = None if place.is_behind else place.chunk.parts[place.row]
            if part is not None:
                return part.has(place.row)
            return client.ahead == "auto" and not self._reads_ahead(client, place.run, request)

    def follows(self, client: Client, request: Request) -> bool:
        """Whether a run that has begun expects `request` next, of whoever has not asked for it yet."""
        with self._lock:
            if self._changing is not None or (place := client.places.get(request)) is None:
                return request in client.expected
            run, chunk, row = place
            is_due = place.is_behind or chunk.num_asked[row] < run.num_askers
            return is_due and max(1, run.next - 1) <= chunk.start + row <= run.next

    def kept(self) -> dict[str, int]:
        """Return the bytes that are kept for later, by what they are kept for."""
        with self._lock:
            ahead = sum(run.num_bytes for run in self.runs)
            to_come = sum(part.num_bytes for run in self.runs for part in run.parts if not part.is_loaded)
        return {
            "bytes_ahead": ahead,
            "bytes_groups": self._groups.num_bytes,
            "bytes_buffers": max(0, self._buffers.idle_bytes - to_come),  # what is to come is made of the others
        }

    def forget(self, client: Client | None = None) -> None:
        """Let go of everything that is kept for a source, or for all."""
        if self._lock.is_mine():
            self._forgets_all = True
            return
        with self._lock:
            self._forget(client)
        if client is None:
            self._groups.clear()

    def rest(self) -> None:
        """Give back the memory that is kept for later."""
        self.forget()
        self._buffers.shrink(0)

    def _rest_if_idle(self) -> bool:
        """Give back the memory where nobody has asked for a while; returns whether."""
        is_idle = perf_counter() - self._asked_at >= threads.IDLE_SECONDS
        if is_idle:
            self.rest()
        return is_idle

    def close(self) -> None:
        """Forget everything, and tell the threads to end."""
        self.rest()
        self._workers.close()

    def wait(self, seconds: float) -> None:
        """Wait so long at most for the threads after `close`."""
        self._workers.wait(seconds)

    def _load_ahead(self, client: Client, wanted: "weakref.ref[Part]") -> None:
        """Load a part on a thread, if it is still there; what goes wrong is told to those who ask for it."""
        if (part := wanted()) is None:
            return
        try:
            part.load_ahead()
        except (ArsrcError, OSError, Stopped):  # who asks loads alone, and so finds out by itself
            part.fail(None)
        except BaseException as error:
            part.fail(error)
            client.metrics.add(background_errors=1)
            if not self._logged:
                self._logged = True
                _LOG.exception("reading ahead failed; the error is raised where the batch is asked for")

    # The methods below run under the lock.

    def _begin_change(self, client: Client) -> None:
        if self._changing is not None or self._forgets_all:
            for run, asked_by in self.runs.items():
                asked_by.places = {}
                for part in run.parts:
                    part.is_dropped = True
            if self._changing is not None:
                self._changing.places = {}
            self.runs = collections.OrderedDict()
            self._forgets_all = False
        self._changing = client

    def _forget(self, client: Client | None) -> None:
        for run, asked_by in list(self.runs.items()):
            if client is None or asked_by is client:
                self._let_go(run, asked_by)
                asked_by.places.clear()

    def _let_go(self, run: Run, client: Client) -> None:
        self._begin_change(client)
        if run in self.runs:
            self._end(run)
        self._changing = None

    def _ask(self, client: Client, request: Request, now: float) -> tuple[Place, Part | None]:
        """Return where `request` stands and the part it is loaded in, having planned what follows it."""
        place = client.places.get(request)
        if place is None or (place.is_behind and place.run.ended):
            run = Run(client.loader, client.places, request.num_askers, request.num_elements * client.element_bytes)
            chunk, row = run.plan(request), 0
        else:
            run, chunk, row = place
            if chunk.start + row == run.next and run.left_at is not None:
                run.pace = pacing.came(run.pace, now - run.left_at)
            if place.is_behind:
                chunk, row = run.plan(request), 0
        assert chunk is not None  # the request itself was not planned yet
        part = chunk.parts[row]
        chunk.num_asked[row] += 1
        run.next = max(run.next, chunk.start + row + 1)
        self._num_calls += 1
        self._asked_at = now
        run.asked_at = self._num_calls
        self.runs[run] = client
        self.runs.move_to_end(run)
        run.let_go(self._max_bytes // 2)
        reads_ahead = self._reads_ahead(client, run, request)
        if part is None and self._is_kept(client, run, chunk.start + row, reads_ahead):
            part = run.add_part(chunk, row, row + 1)
        if part is None and (count := self._together(client, run, chunk.start + row, request)) > 1:
            last = min(row + count, len(chunk.parts))
            if self._make_room(client, (last - row) * run.request_bytes):
                part = run.add_part(chunk, row, last)
                part.is_here = True
        if reads_ahead:
            self._schedule(client, run, request)
        else:
            run.window = 0
        if not self._workers.num_threads and (self._groups.num_bytes or not self._buffers.is_empty):
            self._workers.submit(lambda: None, 1)  # the thread gives them back when nobody asks any more
        while len(self.runs) > _MAX_RUNS:
            self._end(next(iter(self.runs)))
        return Place(run, chunk, row), part

    def _reads_ahead(self, client: Client, run: Run, request: Request) -> bool:
        return pacing.reads_ahead(
            run.pace, client.ahead, request.num_elements, run.request_bytes, client.is_quick, run.num_askers > 1
        )

    def _is_kept(self, client: Client, run: Run, number: int, reads_ahead: bool) -> bool:
        """Whether others may find what a request brings that is asked for now; it is loaded alone where not."""
        if number < run.next - 1:
            return False
        # Devices that share it share one load, however large.
        return run.num_askers > 1 or (reads_ahead and self._make_room(client, run.request_bytes))

    def _together(self, client: Client, run: Run, number: int, request: Request) -> int:
        """Return how many requests the program that asks for one is to load at once, itself."""
        is_next = number == run.next - 1 and number >= _SETTLED
        if not is_next or client.ahead != "auto" or not client.is_quick:
            return 1
        return pacing.together(run.pace, request.num_elements, run.request_bytes)

    def _schedule(self, client: Client, run: Run, request: Request) -> None:
        """Start loading until `window` requests are ahead, as many as the byte limit allows."""
        size = pacing.part_size(run.pace, request.num_elements, run.request_bytes, self._max_bytes)
        most = min(self._max_bytes // max(run.request_bytes, 1), pacing.CHUNK_ROWS)
        run.window = min(max(1, 2 * run.window), pacing.PARTS_AHEAD * size, most)
        while (free := run.window - (run.loaded_until - run.next)) >= max(1, min(size, run.window // 2)):
            if (where := run.at(run.loaded_until)) is None:
                return
            chunk, row = where
            last = min(row + min(size, free), len(chunk.parts))
            if not self._make_room(client, (last - row) * run.request_bytes):
                return
            part = run.add_part(chunk, row, last)
            if not self._workers.submit(
                functools.partial(self._load_ahead, client, weakref.ref(part)), client.num_threads
            ):
                return

    def _make_room(self, client: Client, num_bytes: int) -> bool:
        """Let go of what is not in use until so many bytes more may be kept; False: there is not so much."""
        while (kept := self._num_bytes(client)) + num_bytes > self._max_bytes:
            oldest = next(iter(self.runs))
            # Runs that take turns do not rob each other.
            if self._num_calls - oldest.asked_at <= _IDLE_ROUNDS * len(self.runs):
                return False
            self._end(oldest)
        self._buffers.shrink(self._max_bytes - kept)  # of which what is loaded next is made
        return True

    def _num_bytes(self, client: Client) -> int:
        """Return the bytes that are kept, and those that are left free for groups."""
        has_groups = client.is_grouped or self._groups.num_bytes
        return sum(run.num_bytes for run in self.runs) + (self._groups.max_bytes if has_groups else 0)

    def _end(self, run: Run) -> None:
        if (request := run.expected) is not None:
            self.runs[run].expected.append(request)
        run.end()
        del self.runs[run]
