"""How many bytes are kept for later, and what for: what is read ahead, and decoded groups."""

import threading


class Budget:
    """Sums of bytes by what they are kept for; whoever wants to keep more looks at the total. Safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = {"ahead": 0, "groups": 0}

    def hold(self, kind: str, num_bytes: int) -> None:
        """Note that so many bytes more are kept, or fewer where negative."""
        with self._lock:
            self._held[kind] += num_bytes

    @property
    def total(self) -> int:
        """Bytes that are kept."""
        return sum(self._held.values())

    def snapshot(self) -> dict[str, int]:
        """Return the bytes by what they are kept for."""
        with self._lock:
            return {f"bytes_{kind}": num_bytes for kind, num_bytes in self._held.items()}
