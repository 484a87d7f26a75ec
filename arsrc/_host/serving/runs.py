"""Runs: requests that follow one another, as a training loop asks for them.

A run is planned in chunks of many requests: which ones follow is known when a chunk is planned, and which records they
hold and where these lie is computed when one of them is first wanted, for all of the chunk, since many at once cost far
less. Of a chunk, requests are loaded in parts, by threads ahead of the program, or several small ones by
the program itself; or each alone, when it is asked for.
"""

import collections
import threading
from collections.abc import MutableMapping
from time import perf_counter, thread_time
from typing import NamedTuple

from arsrc._host.machine.once import Once
from arsrc._host.machine.stopping import Stop
from arsrc._host.machine.waiting import num_waits
from arsrc._host.records.leaves import Leaves
from arsrc._host.serving import pacing
from arsrc._host.serving.loading import Loader, Rows
from arsrc._host.serving.requests import Loaded, Planned, Request
from arsrc.errors import ArsrcError


class Chunk:
    """Consecutive requests of a run, planned and located together.

    Attributes:
        planned: The requests.
        start: Number in the run of the first of them.
        stop: Number in the run of the first one behind.
        num_asked: How often each was asked for.
        parts: The part that each is loaded in; None: it is loaded alone.
    """

    def __init__(self, run: "Run", planned: Planned, start: int) -> None:
        self.planned, self.start, self.stop = planned, start, start + len(planned.requests)
        self.num_asked = [0] * len(planned.requests)
        self.parts: list[Part | None] = [None] * len(planned.requests)
        self._run = run
        self._rows: Once[Rows] = Once()

    def load(self, first: int, last: int, outs: Leaves | None = None, stop: Stop | None = None) -> list[Loaded | None]:
        """Load the requests `[first, last)`; see `Loader.load`."""
        loader, requests = self._run.loader, self.planned.requests
        return loader.load(self.planned, self._rows.get(lambda: loader.locate(requests)), first, last, outs, stop)

    def load_alone(self, row: int, outs: Leaves | None) -> Loaded:
        """Load one request for this thread alone, so that it may lie in memory that the program will write again."""
        start = perf_counter()
        (loaded,) = self.load(row, row + 1, outs)
        assert loaded is not None  # a bad record of its own is an error
        self._run.pace = pacing.loaded_here(self._run.pace, perf_counter() - start)
        return loaded


class Part:
    """Consecutive requests of a chunk that are loaded together, for all who will ask for them.

    Attributes:
        start: Number in the run of its first request.
        stop: Number in the run of the first request behind it.
        num_bytes: Decoded bytes that it keeps, or will.
        is_dropped: Whether nobody will ask for it any more.
        is_here: Whether the program loads it itself.
    """

    def __init__(self, run: "Run", chunk: Chunk, first: int, last: int) -> None:
        self.start, self.stop = chunk.start + first, chunk.start + last
        self.num_bytes = (last - first) * run.request_bytes
        self.is_dropped = self.is_here = False
        self._run, self._chunk, self._first, self._last = run, chunk, first, last
        self._loading = threading.RLock()  # a signal handler loads it for itself
        self._loaded: list[Loaded | None] | None = None
        self._failed = False
        self._error: BaseException | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether what its requests bring is there."""
        return self._loaded is not None

    def has(self, row: int) -> bool:
        """Whether what a request of the chunk brings is there."""
        return self._loaded is not None and self._loaded[row - self._first] is not None

    @property
    def num_asked(self) -> list[int]:
        """How often each request was asked for."""
        return self._chunk.num_asked[self._first : self._last]

    def get(self, row: int) -> Loaded | None:
        """Return what a request of the chunk brings, loading or waiting for the part; None: load it alone.

        Raises:
            Exception: What loading on a thread raised that nobody could expect; once.
        """
        with self._loading:
            if self._loaded is None and not self._failed:
                try:
                    self._load(None)
                except (ArsrcError, OSError):
                    if self._last - self._first == 1:
                        raise
                    self._failed = True  # the error may be another request's
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None if self._loaded is None else self._loaded[row - self._first]

    def load_ahead(self) -> None:
        """Load it, unless somebody does so already or nobody will ask any more.

        Raises:
            Exception: What `Loader.load` raises.
        """
        if self._loading.acquire(blocking=False):
            try:
                if self._loaded is None and not self._failed and not self.is_dropped:
                    self._load(lambda: self.is_dropped)
            finally:
                self._loading.release()

    def drop(self) -> None:
        """Note that nobody will ask for it any more; who waits for it still gets it."""
        self.is_dropped = True
        self._chunk.parts[self._first : self._last] = [None] * (self._last - self._first)

    def fail(self, error: BaseException | None) -> None:
        """Note that it cannot be loaded together, and what is to be raised to who asks next."""
        self._error, self._failed = error, True

    def _load(self, stop: Stop | None) -> None:
        count = self._last - self._first
        start, cpu_start, waits = perf_counter(), thread_time(), num_waits()
        self._loaded = self._chunk.load(self._first, self._last, None, stop)
        seconds, cpu_seconds = (perf_counter() - start) / count, (thread_time() - cpu_start) / count
        self._run.pace = pacing.loaded_ahead(self._run.pace, seconds, cpu_seconds, num_waits() != waits)


class Run:
    """Requests that follow one another, numbered from 0.

    Attributes:
        loader: Of the source.
        request_bytes: Decoded bytes of a request.
        chunks: What is planned; the first holds what was asked for last, or lies behind it.
        parts: What is loaded or being loaded of it, in order.
        next: Number of the request that is expected next.
        window: Requests to keep ahead; doubles with each request, so that a single read costs no more.
        pace: What was measured.
        num_askers: How many devices are expected to ask for each request: as many as there may be, until a part was
            let go that fewer have asked for.
        asked_at: Number of the call that asked for it last.
        left_at: When the last call returned, in seconds.
    """

    def __init__(self, loader: Loader, places: "Places", num_askers: int, request_bytes: int) -> None:
        self.loader, self.num_askers, self.request_bytes = loader, num_askers, request_bytes
        self.chunks: collections.deque[Chunk] = collections.deque()
        self.parts: collections.deque[Part] = collections.deque()
        self.next = 0
        self.window = 0
        self.pace = pacing.Pace()
        self.asked_at = 0
        self.left_at: float | None = None
        self._places = places

    @property
    def num_bytes(self) -> int:
        """Bytes that its parts keep, or will."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def loaded_until(self) -> int:
        """Number of the first request that is to come and in no part."""
        return max(self.next, self.parts[-1].stop if self.parts else 0)

    @property
    def ended(self) -> bool:
        """Whether nothing follows what is planned."""
        return self.chunks[-1].planned.ended

    @property
    def expected(self) -> Request | None:
        """The request that is expected next; None where nothing was asked for, or it is not planned any more."""
        for chunk in self.chunks if self.next else ():
            if chunk.start <= self.next <= chunk.stop:
                return [*chunk.planned.requests, chunk.planned.after][self.next - chunk.start]
        return None

    def plan(self, request: Request) -> Chunk | None:
        """Plan a chunk from `request` on, twice as long as the last, up to what another run has planned."""
        most = max(1, pacing.CHUNK_ROWS // max(request.num_elements, 1))
        count = min(2 * len(self.chunks[-1].parts), most) if self.chunks else 1
        planned = self.loader.plan(request, count)
        known = (row for row, one in enumerate(planned.requests) if self._is_planned(one))
        if (met := next(known, None)) is not None:
            planned = Planned(planned.requests[:met], planned.requests[met], False)
        if not planned.requests:
            return None
        chunk = Chunk(self, planned, self.chunks[-1].stop if self.chunks else 0)
        self.chunks.append(chunk)
        for row, one in enumerate(planned.requests):
            self._places[one] = Place(self, chunk, row)
        self._places.setdefault(planned.after, Place(self, chunk, len(planned.requests)))
        return chunk

    def at(self, number: int) -> tuple[Chunk, int] | None:
        """Return where a request stands, planning it if need be; None: nothing follows, or another run has it."""
        for chunk in reversed(self.chunks):
            if chunk.start <= number < chunk.stop:
                return chunk, number - chunk.start
        planned = None if self.ended else self.plan(self.chunks[-1].planned.after)
        return None if planned is None else (planned, 0)

    def add_part(self, chunk: Chunk, first: int, last: int) -> Part:
        """Let the requests `[first, last)` of a chunk be loaded together."""
        part = Part(self, chunk, first, last)
        chunk.parts[first:last] = [part] * (last - first)
        self.parts.append(part)
        return part

    def let_go(self, most_bytes: int) -> None:
        """Let go of what lies behind and nobody will ask for.

        All are waited for who are expected to ask, as long as that keeps no more than so many bytes.
        """
        behind = sum(part.num_bytes for part in self.parts if part.stop < self.next)
        while self.parts and self.parts[0].stop < self.next:
            part = self.parts[0]
            if self.num_askers > 1 and min(part.num_asked) < self.num_askers:
                if behind <= most_bytes:
                    return
                self.num_askers = max(1, *part.num_asked)
            behind -= part.num_bytes
            self.parts.popleft().drop()
        while self.chunks[0].stop < self.next:
            self._drop_chunk()

    def end(self) -> None:
        """Let go of everything."""
        while self.parts:
            self.parts.popleft().drop()
        while self.chunks:
            self._drop_chunk()

    def _drop_chunk(self) -> None:
        chunk = self.chunks.popleft()
        for one in (*chunk.planned.requests, chunk.planned.after):
            if (place := self._places.get(one)) is not None and place.chunk is chunk:
                del self._places[one]

    def _is_planned(self, request: Request) -> bool:
        place = self._places.get(request)
        return place is not None and not place.is_behind


class Place(NamedTuple):
    """Where a request stands: in a chunk, or behind it, where its run goes on."""

    run: Run
    chunk: Chunk
    row: int

    @property
    def is_behind(self) -> bool:
        """Whether it is the one behind the chunk."""
        return self.row == len(self.chunk.parts)


Places = MutableMapping[Request, Place]
