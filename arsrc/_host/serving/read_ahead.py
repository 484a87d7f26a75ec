"""Batches prepared on threads before they are asked for, where that is of use."""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, thread_time
from typing import Any

from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.once import Once
from arsrc._host.machine.threads import give_way
from arsrc._host.machine.waiting import num_waits
from arsrc._host.serving.requests import Leaves, Loaded, Request

_CHUNK_ROWS = 16_384  # rows loaded together: permuting, reading and gathering many at once costs far less a row
_CHUNK_BYTES = 16 * 2**20
_CHUNKS_AHEAD = 4
_MAX_STREAMS = 16
_IDLE_ROUNDS = 4
_TIGHT_GAP = 400e-6  # seconds
_CHEAP = 100e-6  # what copies and decodes nothing takes, in seconds
_CHEAP_ROW = 1e-6
_GROWTH = 1.2
_FORGETTING = 0.5


class Flight:
    """One load of several requests, under way or done."""

    def __init__(self, requests: Sequence[Request], load: Callable[[], list[Loaded]]) -> None:
        self._row = {request: row for row, request in enumerate(requests)}
        self._loaded = Once(load)
        self.is_good = self._loaded.is_good
        self.cancel: Callable[[], Any] = lambda: None

    def depart(self) -> None:
        """Load; what goes wrong is told to those who ask for a result."""
        with contextlib.suppress(Exception):
            self._loaded.get()

    def result(self, request: Request) -> Loaded:
        """Return what one of the requests brings, loading or waiting for it if need be."""
        return self._loaded.get()[self._row[request]]


@dataclasses.dataclass(eq=False)
class Seat:
    """A request's place in a flight, and how often it was asked for."""

    flight: Flight
    num_asked: int = 0


@dataclasses.dataclass(eq=False)
class Stream:
    """A run of requests that follow one another: a training loop, an evaluation loop.

    Attributes:
        last: The last request that was scheduled.
        ahead: Requests that were scheduled and not asked for yet, in order.
        behind: Requests that were asked for, and may be again by other devices.
        window: Requests to keep ahead; doubles with each request, so that a single read costs no more.
        asked_at: Number of the call that asked for it last.
        ended: Whether nothing follows `last`.
        gap: Seconds that the program was away between the last calls; None before the second.
        cost: Seconds to load a request, where nothing holds it up; None before the first.
        left_at: When the last call returned.
    """

    last: Request
    ahead: collections.deque[Request]
    behind: collections.deque[Request] = dataclasses.field(default_factory=collections.deque)
    window: int = 0
    asked_at: int = 0
    ended: bool = False
    gap: float | None = None
    cost: float | None = None
    left_at: float | None = None

    def came(self, now: float) -> None:
        """Note that the program is back for the next request."""
        if self.left_at is not None:
            self.gap = _slowly(self.gap, now - self.left_at)

    def took(self, seconds: float) -> None:
        """Note how long a load on the program's own thread took."""
        self.cost = _slowly(self.cost, seconds)

    def took_elsewhere(self, seconds: float) -> None:
        """Note how long a thread computed for a load, which says less than a load on the program's own."""
        self.cost = seconds if self.cost is None else max(seconds, _FORGETTING * self.cost)

    def is_tight(self, request: Request) -> bool:
        """Whether the program asks for cheap requests like this in so quick a succession that threads are no help.

        They could hide no more of a load than what the program does in between takes, and both would wait for the
        interpreter lock for longer.
        """
        if self.gap is None or self.cost is None or request.num_askers > 1:
            return False
        is_cheap = self.cost < _CHEAP + _CHEAP_ROW * request.num_elements
        return is_cheap and self.gap < max(_TIGHT_GAP, self.cost)


def _slowly(before: float | None, now: float) -> float:
    """Follow a time down at once, but up slowly: one long one, as at an epoch's end, says little."""
    return now if before is None else min(now, _GROWTH * before)


class ReadAhead:
    """Serves requests, and loads on threads those that will follow.

    Results are what `load` gives, with or without reading ahead: a flight that fails is loaded again, alone,
    by whoever asks for it, so that an error reaches the step it belongs to.

    Args:
        load: Loads requests of one stream at once and gives what each brings; for a single one, it may be given
            arrays to write into.
        following: The `n` requests after one; fewer at the end of the last epoch.
        element_bytes: Decoded bytes of one element.
        max_bytes: Most decoded bytes kept, over all streams.
        is_quick: Whether a load copies what lies in memory, and computes and waits for little else.
        num_threads: Threads that load.
        metrics: Where waiting is counted.
    """

    def __init__(
        self,
        load: Callable[[Sequence[Request], Leaves | None], list[Loaded]],
        following: Callable[[Request, int], list[Request]],
        element_bytes: int,
        max_bytes: int,
        is_quick: bool,
        num_threads: int,
        metrics: Metrics,
    ) -> None:
        self._load, self._following, self._element_bytes = load, following, element_bytes
        self._max_bytes, self._is_quick, self._metrics = max_bytes, is_quick, metrics
        self._lock = threading.Lock()
        self._seats: dict[Request, Seat] = {}
        self._streams: collections.OrderedDict[Request, Stream] = collections.OrderedDict()  # by next request
        self._bytes = 0
        self._num_calls = 0
        self._threads = ThreadPoolExecutor(num_threads, "arsrc-read-ahead", give_way)

    def get(self, request: Request, outs: Leaves | None = None) -> Loaded:
        """Return what `request` brings; `outs` are arrays like its leaves, which may be used for them."""
        if self._max_bytes == 0:
            return self._load([request], outs)[0]
        now = perf_counter()
        try:
            with self._lock:
                flight, stream = self._take_seat(request, now)
        except BaseException:  # an interrupt, after which the books may be wrong
            self._forget()
            raise
        with self._metrics.timed("seconds_waited"):
            loaded = self._load_here(request, outs, stream) if flight is None else self._wait(request, flight)
        if stream is not None:
            stream.left_at = perf_counter()
        return loaded

    def is_ready(self, request: Request) -> bool:
        """Whether `get(request)` would hardly have to wait."""
        with self._lock:
            seat, stream = self._seats.get(request), self._streams.get(request)
        if seat is None:
            return stream is not None and self._is_tight(stream, request)
        return seat.flight.is_good()

    def close(self) -> None:
        """Forget everything ahead and stop the threads."""
        self._forget()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _forget(self) -> None:
        with self._lock:
            self._seats.clear()
            self._streams.clear()
            self._bytes = 0

    def _wait(self, request: Request, flight: Flight) -> Loaded:
        """Return what `request` brings from a flight."""
        if flight.is_good():
            self._metrics.add(batches_ready=request.num_batches * len(request.states))
        with contextlib.suppress(Exception):  # the flight's error may be another request's: see for ourselves
            return flight.result(request)
        with self._lock:
            self._drop(request)
        return self._load([request], None)[0]

    def _load_here(self, request: Request, outs: Leaves | None, stream: Stream | None) -> Loaded:
        """Load `request` for this thread alone, so that it may lie in memory that the program will write again."""
        start = perf_counter()
        (loaded,) = self._load([request], outs)
        if stream is not None:
            stream.took(perf_counter() - start)
        return loaded

    def _load_ahead(self, requests: Sequence[Request], stream: Stream) -> list[Loaded]:
        """Load `requests` for all who will ask for them."""
        start, before = thread_time(), num_waits()
        loaded = self._load(requests, None)
        if num_waits() == before:
            stream.took_elsewhere((thread_time() - start) / len(requests))
        return loaded

    def _is_tight(self, stream: Stream, request: Request) -> bool:
        return self._is_quick and stream.is_tight(request)

    # The methods below run under the lock.

    def _take_seat(self, request: Request, now: float) -> tuple[Flight | None, Stream | None]:
        """Return the flight that brings `request`, None if it is best loaded here, and the stream it belongs to."""
        seat = self._seats.get(request)
        stream = self._streams.pop(request, None)
        if stream is not None:
            stream.came(now)
        if seat is None and not (stream is not None and self._is_tight(stream, request)):
            stream = stream or Stream(request, collections.deque([request]))
            seat = self._board([request], stream)
        if seat is not None:
            seat.num_asked += 1
        if stream is not None:
            self._move_on(stream)
        elif seat is not None and seat.num_asked == request.num_askers > 1:
            self._drop(request)
        return seat.flight if seat is not None else None, stream

    def _move_on(self, stream: Stream) -> None:
        """Take the next request of `stream` as asked for, let go of older ones, and schedule more."""
        self._num_calls += 1
        stream.asked_at = self._num_calls
        if stream.ahead:
            stream.behind.append(stream.ahead.popleft())
        self._schedule(stream)
        if not stream.ahead and not stream.ended:
            stream.ahead.extend(self._following(stream.last, 1))
            stream.ended = not stream.ahead
            stream.last = stream.ahead[0] if stream.ahead else stream.last
        self._let_go(stream)
        after = stream.ahead[0] if stream.ahead else stream.behind[-1]
        if (met := self._streams.pop(after, None)) is not None:  # from here on, the two are one
            stream.behind.extendleft(reversed(met.behind))
            if len(met.ahead) > len(stream.ahead):
                stream.ahead, stream.last, stream.ended = met.ahead, met.last, met.ended
        self._streams[after] = stream
        while len(self._streams) > _MAX_STREAMS:
            self._abandon()

    def _chunk(self, request: Request) -> int:
        """Return how many requests to load together."""
        rows, num_bytes = max(request.num_elements, 1), max(self._num_bytes(request), 1)
        return max(1, min(_CHUNK_ROWS // rows, _CHUNK_BYTES // num_bytes, self._max_bytes // num_bytes // 2))

    def _let_go(self, stream: Stream) -> None:
        """Drop what all devices have asked for, but the last, which somebody else may ask for too."""
        most_behind = self._max_bytes // 2
        while len(stream.behind) > 1:
            oldest = stream.behind[0]
            seat = self._seats.get(oldest)
            waiting = seat is not None and seat.num_asked < oldest.num_askers
            if waiting and len(stream.behind) * self._num_bytes(oldest) <= most_behind:
                return
            self._drop(stream.behind.popleft())

    def _schedule(self, stream: Stream) -> None:
        """Start loading until `window` requests are ahead, as many as the byte limit allows."""
        if self._is_tight(stream, stream.last):
            stream.window = 0
            return
        num_bytes, chunk = self._num_bytes(stream.last), self._chunk(stream.last)
        most = min(self._max_bytes // max(num_bytes, 1), _CHUNK_ROWS)
        stream.window = min(max(1, 2 * stream.window), _CHUNKS_AHEAD * chunk, most)
        while not stream.ended and len(stream.ahead) + max(1, min(chunk, stream.window // 2)) <= stream.window:
            size = min(chunk, stream.window - len(stream.ahead))
            while self._bytes + size * num_bytes > self._max_bytes:
                if not self._has_idle_stream():
                    return
                self._abandon()
            requests = self._following(stream.last, size)
            stream.ended = len(requests) < size
            if not requests or not self._start(requests, stream):
                stream.ended = True
                return
            stream.ahead.extend(requests)
            stream.last = requests[-1]

    def _start(self, requests: Sequence[Request], stream: Stream) -> bool:
        """Start loading those of `requests` that are not under way; False where there are no more threads."""
        missing = [request for request in requests if request not in self._seats]
        if not missing:
            return True
        flight = self._board(missing, stream).flight
        try:
            flight.cancel = self._threads.submit(flight.depart).cancel
        except RuntimeError:  # the interpreter is exiting, or the source was closed
            for request in missing:
                self._drop(request)
            return False
        return True

    def _num_bytes(self, request: Request) -> int:
        return request.num_elements * self._element_bytes

    def _board(self, requests: Sequence[Request], stream: Stream) -> Seat:
        """Give each of `requests` a seat in a new flight; returns that of the first."""
        flight = Flight(requests, lambda: self._load_ahead(requests, stream))
        for request in requests:
            self._seats[request] = Seat(flight)
            self._bytes += self._num_bytes(request)
        return self._seats[requests[0]]

    def _drop(self, request: Request) -> None:
        if self._seats.pop(request, None) is not None:
            self._bytes -= self._num_bytes(request)

    def _has_idle_stream(self) -> bool:
        """Whether some stream was left out for several rounds: streams that take turns do not rob each other."""
        oldest = next(iter(self._streams.values()), None)
        return oldest is not None and self._num_calls - oldest.asked_at > _IDLE_ROUNDS * len(self._streams)

    def _abandon(self) -> None:
        """Forget the stream that was not asked for the longest time."""
        _, stream = self._streams.popitem(last=False)
        for request in (*stream.behind, *stream.ahead):
            if (seat := self._seats.get(request)) is not None:
                seat.flight.cancel()
                self._drop(request)
