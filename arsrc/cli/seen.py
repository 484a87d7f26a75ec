"""What is remembered of records that go by, to say by which codec they are read."""

from collections.abc import Iterable, Iterator, Sequence

from arsrc.cli.codec_line import codec_text
from arsrc.cli.kinds import kind_of

_NUM_SAMPLES = 16


class Seen:
    """Some of the records that were seen, and the lengths of all."""

    def __init__(self) -> None:
        self._samples: list[bytes] = []
        self._lengths: set[int] = set()  # all of them, or the two that matter

    def add(self, records: Sequence[bytes]) -> None:
        """Take note of records."""
        self._samples += records[: _NUM_SAMPLES - len(self._samples)]
        lengths = self._lengths.union(map(len, records))
        self._lengths = {min(lengths), max(lengths)} if lengths else lengths

    def each(self, pieces: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        """Pass records through, some at a time, and take note of them."""
        for piece in pieces:
            self.add(piece)
            yield piece

    @property
    def codec(self) -> str:
        """The codec that reads them, as text; empty where none was seen."""
        kinds = [kind_of(record) for record in self._samples]
        return codec_text(kinds, len(self._lengths) == 1, max(self._lengths)) if kinds else ""
