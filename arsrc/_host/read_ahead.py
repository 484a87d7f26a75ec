"""Batches prepared on threads before they are asked for."""

import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from arsrc._host.metrics import Metrics
from arsrc._host.requests import Loaded, Request

_CHUNK_ROWS = 4096  # rows loaded together: permuting, reading and gathering many at once costs far less a row
_CHUNK_BYTES = 16 * 2**20
_CHUNKS_AHEAD = 4
_MAX_STREAMS = 16
_IDLE_ROUNDS = 4


class Flight:
    """One load of several requests, under way or done."""

    def __init__(self, future: "Future[list[Loaded]]", requests: Sequence[Request]) -> None:
        self.future = future
        self._row = {request: row for row, request in enumerate(requests)}

    def result(self, request: Request) -> Loaded:
        """Wait for the load and return what one of its requests brings."""
        return self.future.result()[self._row[request]]

    def is_good(self) -> bool:
        """Whether the load is done and did not fail."""
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None


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
    """

    last: Request
    ahead: collections.deque[Request]
    behind: collections.deque[Request] = dataclasses.field(default_factory=collections.deque)
    window: int = 0
    asked_at: int = 0
    ended: bool = False


class ReadAhead:
    """Serves requests, and loads on threads those that will follow.

    Results are what `load` gives, with or without reading ahead: a flight that fails is loaded again, alone,
    by whoever asks for it, so that an error reaches the step it belongs to.

    Args:
        load: Loads requests of one stream at once and gives what each brings.
        following: The `n` requests after one; fewer at the end of the last epoch.
        element_bytes: Decoded bytes of one element.
        max_bytes: Most decoded bytes kept, over all streams.
        num_threads: Threads that load.
        metrics: Where waiting is counted.
    """

    def __init__(
        self,
        load: Callable[[Sequence[Request]], list[Loaded]],
        following: Callable[[Request, int], list[Request]],
        element_bytes: int,
        max_bytes: int,
        num_threads: int,
        metrics: Metrics,
    ) -> None:
        self._load, self._following, self._element_bytes = load, following, element_bytes
        self._max_bytes, self._metrics = max_bytes, metrics
        self._lock = threading.Lock()
        self._seats: dict[Request, Seat] = {}
        self._streams: collections.OrderedDict[Request, Stream] = collections.OrderedDict()  # by next request
        self._bytes = 0
        self._num_calls = 0
        self._threads = ThreadPoolExecutor(num_threads, "arsrc-read-ahead")

    def get(self, request: Request) -> Loaded:
        """Return what `request` brings."""
        if self._max_bytes == 0:
            return self._load([request])[0]
        with self._lock:
            seat = self._seats.get(request)
            is_mine = seat is None
            if seat is None:
                seat = self._board(request, _running(request))
            seat.num_asked += 1
            stream = self._streams.pop(request, None)
            if stream is None and is_mine:
                stream = Stream(request, collections.deque([request]))
            if stream is not None:
                self._move_on(stream)
            elif seat.num_asked == request.num_askers > 1:
                self._drop(request)
        if is_mine:
            return self._load_now(request, seat.flight)
        if seat.flight.future.done():
            self._metrics.add(batches_ready=request.num_batches * len(request.states))
        try:
            with self._metrics.timed("seconds_waited"):
                return seat.flight.result(request)
        except Exception:  # the flight's error may be another request's: see for ourselves
            with self._lock:
                self._drop(request)
            return self._load([request])[0]

    def is_ready(self, request: Request) -> bool:
        """Whether `get(request)` would neither wait nor fail."""
        with self._lock:
            seat = self._seats.get(request)
        return seat is not None and seat.flight.is_good()

    def close(self) -> None:
        """Forget everything ahead and stop the threads."""
        with self._lock:
            self._seats.clear()
            self._streams.clear()
            self._bytes = 0
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _load_now(self, request: Request, flight: Flight) -> Loaded:
        """Load `request` on this thread; `flight` tells others who wait for it."""
        try:
            with self._metrics.timed("seconds_waited"):
                loaded = self._load([request])
        except BaseException as error:
            flight.future.set_exception(error)
            with self._lock:
                self._drop(request)
            raise
        flight.future.set_result(loaded)
        return loaded[0]

    # The methods below run under the lock.

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
        self._streams[stream.ahead[0] if stream.ahead else stream.behind[-1]] = stream
        while len(self._streams) > _MAX_STREAMS:
            self._abandon()

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
        rows, num_bytes = stream.last.num_elements, self._num_bytes(stream.last)
        most = min(self._max_bytes // max(num_bytes, 1), _CHUNK_ROWS)
        chunk = max(1, min(_CHUNK_ROWS // max(rows, 1), _CHUNK_BYTES // max(num_bytes, 1), most // 2))
        stream.window = min(max(1, 2 * stream.window), _CHUNKS_AHEAD * chunk, most)
        while not stream.ended and len(stream.ahead) + max(1, min(chunk, stream.window // 2)) <= stream.window:
            size = min(chunk, stream.window - len(stream.ahead))
            while self._bytes + size * num_bytes > self._max_bytes:
                if not self._has_idle_stream():
                    return
                self._abandon()
            requests = self._following(stream.last, size)
            stream.ended = len(requests) < size
            if not requests or not self._start(requests):
                stream.ended = True
                return
            stream.ahead.extend(requests)
            stream.last = requests[-1]

    def _start(self, requests: Sequence[Request]) -> bool:
        """Start loading those of `requests` that are not under way; False where there are no more threads."""
        missing = [request for request in requests if request not in self._seats]
        try:
            flight = Flight(self._threads.submit(self._load, missing), missing) if missing else None
        except RuntimeError:  # the interpreter is exiting, or the source was closed
            return False
        for request in missing:
            assert flight is not None
            self._board(request, flight)
        return True

    def _num_bytes(self, request: Request) -> int:
        return request.num_elements * self._element_bytes

    def _board(self, request: Request, flight: Flight) -> Seat:
        seat = self._seats[request] = Seat(flight)
        self._bytes += self._num_bytes(request)
        return seat

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
                seat.flight.future.cancel()
                self._drop(request)


def _running(request: Request) -> Flight:
    """Return a flight that this thread is about to load; it can no longer be cancelled."""
    future: Future[list[Loaded]] = Future()
    future.set_running_or_notify_cancel()
    return Flight(future, [request])
