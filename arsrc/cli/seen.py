"""What is remembered of records that go by, to say by which codec they are read."""

from collections.abc import Iterable, Iterator, Sequence

from arsrc.cli.codec_line import alike, codec_text
from arsrc.cli.guess import Guess, Sizes, Tried, guess
from arsrc.cli.kinds import Kind, kind_of
from arsrc.cli.trial import misfit
from arsrc.errors import ArsrcError

_MOST_SAMPLES = 64
_MOST_BYTES = 64 * 2**20  # of all that are kept
_MOST_MISFITS = 100  # that are counted: each is looked for anew
_AT_ONCE = 256  # records that are tried
_TRIED_RECORDS, _TRIED_BYTES = 2**12, 2**22  # of the first records: all are tried
_TRIED_LATER = 16  # one piece of so many, since to try a record takes half of the time to write it


class Seen:
    """Some of the records that were seen, spread evenly over all, and the lengths of all.

    They are tried by the codec that those before them gave: all of the first ones, later one piece in some, and any
    that is longer than all before. One that it does not read is remembered, and tells a codec that reads more: longer
    lists, fewer fields.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[int, Kind]] = []  # bytes of, and what is each whose number is a multiple of the step
        self._step = 1
        self._num_records = self._num_bytes = 0
        self._lengths: set[int] = set()  # all of them, or the two that matter
        self._learned: list[Kind] = []  # of the first records, and of those that told another codec
        self._codec = ""
        self._num_untried = 0  # records, where no codec was known, or it cannot be made
        self._tried = Tried(0, 0, "", are_all=True)
        self._num_passed = 0  # pieces that were not tried, in a row, but for the longest of their records
        self._longest_tried = -1

    def add(self, records: Sequence[bytes]) -> None:
        """Take note of records."""
        if not records:
            return
        at = -self._num_records % self._step
        while at < len(records):
            self._samples.append((len(records[at]), kind_of(records[at])))
            if len(self._samples) > _MOST_SAMPLES or sum(size for size, _ in self._samples) > _MOST_BYTES:
                self._samples = self._samples[::2]
                self._step *= 2
            at += 1 + -(self._num_records + at + 1) % self._step
        self._num_records += len(records)
        lengths = self._lengths.union(map(len, records))
        self._lengths = {min(lengths), max(lengths)}
        self._num_bytes += sum(map(len, records))
        is_first = self._num_records <= _TRIED_RECORDS and self._num_bytes <= _TRIED_BYTES
        if is_first or self._num_passed == _TRIED_LATER - 1:
            self._num_passed = 0
            self._try(sorted(records, key=len, reverse=True))
        else:
            self._num_passed += 1
            longest = max(records, key=len)
            if len(longest) > self._longest_tried:
                self._try([longest])

    def each(self, pieces: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        """Pass records through, some at a time, and take note of them."""
        for piece in pieces:
            self.add(piece)
            yield piece

    def guess(self) -> Guess:
        """Return the codec that reads them."""
        samples = [kind for _, kind in self._samples]
        if not self._told(samples):  # bytes, whatever those are that were learned
            return guess(samples, self._sizes(), Tried(self._num_records, 0, "", are_all=True))
        found = [*samples, *(kind for kind in self._learned if not any(kind is other for other in samples))]
        return guess(found, self._sizes(), None if self._num_untried else self._tried)

    @property
    def codec(self) -> str:
        """The codec that reads them, as text; empty where none was seen."""
        return self.guess().codec

    def _try(self, records: Sequence[bytes]) -> None:
        """Read records, the longest first, by the codec that those before them gave."""
        self._longest_tried = max(self._longest_tried, len(records[0]))
        if not self._codec:
            self._learned = [kind for _, kind in self._samples]
            self._codec = self._told(self._learned)
        if not self._codec:
            self._num_untried += len(records)
            return
        for start in range(0, len(records), _AT_ONCE):
            group = list(records[start : start + _AT_ONCE])
            self._tried = self._tried._replace(num_tried=self._tried.num_tried + len(group))
            try:
                self._try_group(group)
            except ArsrcError:  # an extra is needed to read some of them, and is not installed
                self._num_untried += len(group)

    def _try_group(self, group: list[bytes]) -> None:
        while self._tried.are_all and (found := misfit(self._codec, group)):
            row, why = found
            if not self._learns(kind_of(group[row])):
                tried, count, first, _ = self._tried
                self._tried = Tried(tried, count + 1, first or why, are_all=count + 1 < _MOST_MISFITS)
                del group[row]

    def _learns(self, kind: Kind) -> bool:
        """Take note of what a record is that the codec does not read, if that tells another codec; return whether."""
        codec = self._told([*self._learned, kind])
        if codec in ("", self._codec):
            return False
        if codec.count("Image(") < self._codec.count("Image("):  # the bytes of those before have not been counted
            self._num_untried = self._num_records
        self._learned.append(kind)
        self._codec = codec
        return True

    def _told(self, found: Sequence[Kind]) -> str:
        """Return the codec that decodes such records, whatever their length; empty: there is none."""
        codec = codec_text(found, False, self._sizes().most) if found else ""
        if codec == "Npy()":
            head = alike(found)[0].value
            return f'Npy(("{head.dtype}", {head.shape}))'
        return "" if codec.startswith("Ragged(max_length=") else codec

    def _sizes(self) -> Sizes:
        """Return what is known of lengths: all."""
        most = max(self._lengths, default=0)
        return Sizes(self._num_records, self._num_records, most, len(self._lengths) == 1)
