"""Values that several threads want and one of them loads."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """What `load()` gives, or the error that it raises: loaded by whoever asks first, while others wait.

    Nobody has to keep a promise to load it: where the first is interrupted, the next who asks loads it.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load: Callable[[], T] | None = load
        self._value: T | None = None
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value, or raise the error."""
        with self._lock:
            if self._load is not None:
                try:
                    self._value = self._load()
                except Exception as error:
                    self._error = error
                self._load = None  # and with it, what it refers to
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def is_good(self) -> bool:
        """Whether the value is there."""
        return self._load is None and self._error is None
