"""An input file for packages that want a file object in which they can go to and fro."""

from arsrc.cli.inputs.blocks import InputFile


class Seekable:
    """What a package sees of a file."""

    def __init__(self, file: InputFile) -> None:
        self._file, self._at = file, 0

    def read(self, num_bytes: int = -1) -> bytes:
        """Return the next bytes, fewer where the file ends."""
        left = max(0, self._file.num_bytes - self._at)
        data = self._file.read(left if num_bytes < 0 else min(num_bytes, left), self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset from the beginning, from here or from the end; return where that is."""
        self._at = max(0, offset + (0, self._at, self._file.num_bytes)[whence])
        return self._at

    def tell(self) -> int:
        """Return where one is."""
        return self._at

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True
