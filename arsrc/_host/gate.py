"""A gate that many threads pass through at once, until it is closed for good."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets threads in while it is open; closing waits for those that are inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0
        self._closed = False

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Give whether the gate is open; if so it cannot close inside the `with` block."""
        with self._changed:
            is_open = not self._closed
            self._num_inside += is_open
        try:
            yield is_open
        finally:
            if is_open:
                with self._changed:
                    self._num_inside -= 1
                    if self._closed and not self._num_inside:
                        self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in from now on, and return when nobody is inside. May be called again."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._num_inside)
