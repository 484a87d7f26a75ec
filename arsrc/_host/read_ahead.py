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
class Stream:
    """A run of requests that follow one another: a training loop, an evaluation loop.

    Attributes:
        last: The last request that has a flight.
        ahead: Requests that have a flight and were not asked for yet, in order.
        served: The request asked for last; its flight stays for other devices that ask for the same rows.
        window: Requests to keep ahead; doubles with each request, so that a single read costs no more.
        ended: Whether nothing follows `last`.
    """

    last: Request
    ahead: collections.deque[Request]
    served: Request | None = None
    window: int = 0
    ended: bool = False


class ReadAhead:
    """Serves requests, and loads on threads those that will follow.

    Results are what `load` gives, with or without reading ahead: a flight that fails is loaded again, alone,
    by whoever asks for it, so that an error reaches the step it belongs to.

    Args:
        load: Loads consecutive requests at once and gives what each brings.
        following: The `n` requests after one; fewer at the end of the last epoch.
        element_bytes: Decoded bytes of one element.
        max_bytes: Most decoded bytes ahead, over all streams.
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
        self._flights: dict[Request, Flight] = {}
        self._streams: collections.OrderedDict[Request, Stream] = collections.OrderedDict()  # by next request
        self._bytes = 0
        self._threads = ThreadPoolExecutor(num_threads, "arsrc-read-ahead")

    def get(self, request: Request) -> Loaded:
        """Return what `request` brings."""
        if self._max_bytes == 0:
            return self._load([request])[0]
        with self._lock:
            flight = self._flights.get(request)
            own = None if flight else self._board(request, _running(request))
            stream = self._streams.pop(request, None)
            if stream is None and own:
                stream = Stream(request, collections.deque([request]))
            if stream is not None:
                self._move_on(stream)
        if own is not None:
            return self._load_now(request, own)
        assert flight is not None
        self._metrics.add(batches_ready=request.num_batches * len(request.states) if flight.future.done() else 0)
        try:
            with self._metrics.timed("seconds_waited"):
                return flight.result(request)
        except Exception:  # the flight's error may be another request's: see for ourselves
            with self._lock:
                self._drop(request)
            return self._load([request])[0]

    def is_ready(self, request: Request) -> bool:
        """Whether `get(request)` would neither wait nor fail."""
        with self._lock:
            flight = self._flights.get(request)
        return flight is not None and flight.is_good()

    def close(self) -> None:
        """Forget everything ahead and stop the threads."""
        with self._lock:
            self._flights.clear()
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
        """Take the next request of `stream` as asked for, and schedule more."""
        if stream.served is not None:
            self._drop(stream.served)
        stream.served = stream.ahead.popleft()
        self._schedule(stream)
        if stream.ahead:
            self._streams[stream.ahead[0]] = stream
        elif not stream.ended and (following := self._following(stream.served, 1)):
            stream.ahead.extend(following)
            stream.last = following[0]
            self._streams[stream.last] = stream
        else:
            self._drop(stream.served)
        while len(self._streams) > _MAX_STREAMS:
            self._abandon()

    def _schedule(self, stream: Stream) -> None:
        """Start loading until `window` requests are ahead, as many as the byte limit allows."""
        rows, num_bytes = stream.last.num_elements, self._num_bytes(stream.last)
        most = min(self._max_bytes // max(num_bytes, 1), _MAX_STREAMS * _CHUNK_ROWS)
        chunk = max(1, min(_CHUNK_ROWS // max(rows, 1), _CHUNK_BYTES // max(num_bytes, 1), most // 2))
        stream.window = min(max(1, 2 * stream.window), _CHUNKS_AHEAD * chunk, most)
        while not stream.ended and len(stream.ahead) + max(1, min(chunk, stream.window // 2)) <= stream.window:
            size = min(chunk, stream.window - len(stream.ahead))
            while self._bytes + size * num_bytes > self._max_bytes and self._streams:
                self._abandon()
            if self._bytes + size * num_bytes > self._max_bytes:
                return
            requests = self._following(stream.last, size)
            stream.ended = len(requests) < size
            if not requests:
                return
            try:
                flight = Flight(self._threads.submit(self._load, requests), requests)
            except RuntimeError:  # the interpreter is exiting: no new threads
                stream.ended = True
                return
            for request in requests:
                self._board(request, flight)
            stream.ahead.extend(requests)
            stream.last = requests[-1]

    def _num_bytes(self, request: Request) -> int:
        return request.num_elements * self._element_bytes

    def _board(self, request: Request, flight: Flight) -> Flight:
        self._drop(request)
        self._flights[request] = flight
        self._bytes += self._num_bytes(request)
        return flight

    def _drop(self, request: Request) -> None:
        if self._flights.pop(request, None) is not None:
            self._bytes -= self._num_bytes(request)

    def _abandon(self) -> None:
        """Forget the stream that was not asked for the longest time."""
        _, stream = self._streams.popitem(last=False)
        for request in (stream.served, *stream.ahead):
            if request is not None and (flight := self._flights.get(request)) is not None:
                flight.future.cancel()
                self._drop(request)


def _running(request: Request) -> Flight:
    """Return a flight that this thread is about to load; it can no longer be cancelled."""
    future: Future[list[Loaded]] = Future()
    future.set_running_or_notify_cancel()
    return Flight(future, [request])
