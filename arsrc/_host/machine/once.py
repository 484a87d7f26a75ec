"""Values that several threads want and one of them loads."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """A value that is loaded by whoever asks first, while others wait.

    Nobody has to keep a promise to load it, and errors are not kept: where one fails or is interrupted, the next who
    asks loads it in its own way. So does a signal handler that asks in the midst of loading.
    """

    def __init__(self) -> None:
        self._value: T | None = None
        self._is_there = False
        self._lock = threading.RLock()

    @classmethod
    def of(cls, value: T) -> "Once[T]":
        """Return one whose value is there."""
        once: Once[T] = cls()
        once.get(lambda: value)
        return once

    def get(self, load: Callable[[], T]) -> T:
        """Return the value, which is what `load()` gives if it is not there yet."""
        if not self._is_there:
            with self._lock:
                if not self._is_there:
                    self._keep(load())
        return self._value  # type: ignore[return-value]

    def _keep(self, value: T) -> None:
        if not self._is_there:  # a signal handler may have loaded it meanwhile
            self._value = value
            self._is_there = True

    @property
    def value(self) -> T | None:
        """The value if it is there, else None."""
        return self._value if self._is_there else None
