"""What is remembered of records that go by, to say by which codec they are read."""

from collections.abc import Iterable, Iterator, Sequence

from arsrc.cli.codec_line import Guess, guess
from arsrc.cli.kinds import kind_of

_MOST_SAMPLES = 64
_MOST_BYTES = 64 * 2**20  # of all that are kept


class Seen:
    """Some of the records that were seen, spread evenly over all, and the lengths of all."""

    def __init__(self) -> None:
        self._samples: list[bytes] = []  # each record whose number is a multiple of the step
        self._step = 1
        self._num_records = 0
        self._lengths: set[int] = set()  # all of them, or the two that matter

    def add(self, records: Sequence[bytes]) -> None:
        """Take note of records."""
        at = -self._num_records % self._step
        while at < len(records):
            self._samples.append(records[at])
            if len(self._samples) > _MOST_SAMPLES or sum(map(len, self._samples)) > _MOST_BYTES:
                self._samples = self._samples[::2]
                self._step *= 2
            at += 1 + -(self._num_records + at + 1) % self._step
        self._num_records += len(records)
        lengths = self._lengths.union(map(len, records))
        self._lengths = {min(lengths), max(lengths)} if lengths else lengths

    def each(self, pieces: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        """Pass records through, some at a time, and take note of them."""
        for piece in pieces:
            self.add(piece)
            yield piece

    def guess(self) -> Guess:
        """Return the codec that reads them."""
        found = [kind_of(record) for record in self._samples]
        return guess(found, len(self._lengths) == 1, max(self._lengths, default=0), self._num_records)

    @property
    def codec(self) -> str:
        """The codec that reads them, as text; empty where none was seen."""
        return self.guess().codec
