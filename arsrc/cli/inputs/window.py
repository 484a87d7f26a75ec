"""A window on what a file holds, for readers of what has no end that is known beforehand."""

from arsrc.cli.inputs.blocks import BLOCK_BYTES, InputFile, beginning, blocks, is_packed, unpacked


class Window:
    """What a file holds from some place on, unpacked where it is compressed: a buffer, and where in it one is.

    Attributes:
        buffer: Bytes of the file.
        at: Where in them one is.
        num_bytes: Size of the file; None where it is compressed, so that only its end tells.
    """

    def __init__(self, path: str) -> None:
        self.buffer, self.at = b"", 0
        self._begin = 0
        is_stream = is_packed(beginning(path))
        self._more = self._of_stream if is_stream else self._of_file
        self._file, self._stream = InputFile(path), unpacked(path, blocks(path))
        self.num_bytes = None if is_stream else self._file.num_bytes

    @property
    def byte(self) -> int:
        """Where in the file, or in what it unpacks to, one is."""
        return self._begin + self.at

    def holds(self, num_bytes: int) -> bool:
        """Read on until the buffer holds so many bytes from `at` on; returns whether the file does."""
        if len(self.buffer) - self.at < num_bytes:
            rest = self.buffer[self.at :]
            self._begin += self.at
            self.buffer, self.at = self._more(rest, num_bytes), 0
        return len(self.buffer) - self.at >= num_bytes

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes and go on behind them; fewer where the file ends."""
        self.holds(num_bytes)
        data = self.buffer[self.at : self.at + num_bytes]
        self.at += len(data)
        return data

    def _of_file(self, rest: bytes, num_bytes: int) -> bytes:
        del rest  # to read it again takes less time than to copy what comes behind it
        return self._file.read(min(max(num_bytes, BLOCK_BYTES), self._file.num_bytes), self._begin)

    def _of_stream(self, rest: bytes, num_bytes: int) -> bytes:
        pieces, left = [rest], len(rest)
        while left < num_bytes and (block := next(self._stream, None)) is not None:
            pieces.append(block)
            left += len(block)
        return b"".join(pieces)
