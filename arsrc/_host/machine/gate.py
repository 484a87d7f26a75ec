"""A gate that many threads pass through at once, until it is closed for good."""

import threading
from types import TracebackType

from arsrc.errors import ArsrcReadError, message


class Gate:
    """Lets threads in, with `with gate:`, while it is open; closing waits for those that are inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # on its own, since entering a condition takes longer
        self._empty = threading.Condition(self._lock)
        self._num_inside = 0
        self._closed = False

    def __enter__(self) -> None:
        """Go in; the gate cannot close before `__exit__`.

        Raises:
            ArsrcReadError: It is closed.
        """
        with self._lock:
            if self._closed:
                raise ArsrcReadError(message("read", "the files were closed", "Read before close(config)."))
            self._num_inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Go out."""
        with self._lock:
            self._num_inside -= 1
            if self._closed and not self._num_inside:
                self._empty.notify_all()

    def close(self) -> None:
        """Let nobody in from now on, and return when nobody is inside. May be called again."""
        with self._lock:
            self._closed = True
            self._empty.wait_for(lambda: not self._num_inside)
