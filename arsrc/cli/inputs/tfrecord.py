"""TFRecord files: their records, both checksums of each checked, without TensorFlow."""

import struct
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from arsrc.cli.inputs.damage import COPY, damage
from arsrc.cli.inputs.packages import needed_for
from arsrc.cli.inputs.window import Window

# A length, a checksum of it, the record, a checksum of that; https://www.tensorflow.org/tutorials/load_data/tfrecord
_HEAD_BYTES, _CRC_BYTES = 12, 4
_LENGTH = struct.Struct("<Q")
_MOST_KNOWN = 1 << 16
_STREAK = 4  # records of one length, after which more of them are looked for
_ANEW = "Write or copy it anew."
_MOST_OF_STREAM = 2**31 - 1  # bytes of a record where nothing else says how many there can be


def read(path: str) -> Iterator[list[bytes]]:
    """Yield the records of a file, which may be compressed by gzip or zlib, some at a time.

    Raises:
        ArsrcReadError: A checksum does not fit what it is of, or the file ends in a record.
        ArsrcValueError: What computes checksums is not installed.
    """
    window, frames = Window(path), _Frames()
    position = 0
    while _may_hold(window, frames.wanted_bytes) and window.holds(frames.wanted_bytes):
        start = window.byte
        records, crcs = frames.scan(window)
        if (bad := frames.first_bad(records, crcs)) is not None:
            byte = start + sum(_HEAD_BYTES + len(record) + _CRC_BYTES for record in records[:bad])
            what = "the checksum of a record is wrong"
            raise damage(path, what, _ANEW, position=position + bad, byte=byte)
        position += len(records)
        if frames.is_broken:
            what = "the checksum of a record's length is wrong"
            raise damage(path, what, _fix(position, _ANEW), position=position, byte=window.byte)
        if records:
            yield records
    if window.holds(1):
        what = "a TFRecord file ends in the midst of a record"
        if window.num_bytes is None and not _may_hold(window, frames.wanted_bytes):
            what = f"the length of a record in a compressed file is larger than {_MOST_OF_STREAM:,}"
        raise damage(path, what, _fix(position, COPY), position=position, byte=window.byte)


def _may_hold(window: Window, num_bytes: int) -> bool:
    """Whether there can be so many bytes from here on: a length alone takes no memory."""
    if window.num_bytes is not None:
        return num_bytes <= window.num_bytes - window.byte
    return num_bytes <= _HEAD_BYTES + _MOST_OF_STREAM + _CRC_BYTES


def _fix(position: int, fix: str) -> str:
    return fix if position else f"Is it a TFRecord file? {fix}"


class _Frames:
    """What stands around records.

    Attributes:
        wanted_bytes: How many bytes from here on are needed to go on.
        is_broken: Whether what stands here is no length.
    """

    def __init__(self) -> None:
        # By the processor's own instruction where it has one: some 0.2 us for 784 bytes.
        with needed_for("TFRecord files", "google-crc32c"):
            from google_crc32c import value
        self._crc32c: Callable[[bytes], int] = value
        self._known: dict[bytes, int] = {}  # heads that were checked, and the lengths that they say
        self.wanted_bytes, self.is_broken = _HEAD_BYTES, False

    def scan(self, window: Window) -> tuple[list[bytes], NDArray[np.uint32]]:
        """Return the records that are whole in a window, and the checksums behind them, and go on behind them."""
        buffer, at = window.buffer, window.at
        num_bytes, known = len(buffer), self._known
        records: list[bytes] = []
        ends: list[int] = []
        streak, before = 0, b""
        while True:
            begin = at + _HEAD_BYTES
            head = buffer[at:begin]
            size = known.get(head)
            if size is None:
                if len(head) < _HEAD_BYTES:
                    self.wanted_bytes = _HEAD_BYTES
                    break
                if (size := self._length(head)) is None:
                    self.is_broken = True
                    break
            end = begin + size
            if end + _CRC_BYTES > num_bytes:
                self.wanted_bytes = _HEAD_BYTES + size + _CRC_BYTES
                break
            streak = streak + 1 if head == before else 0
            if streak < _STREAK or not size:
                records.append(buffer[begin:end])
                ends.append(end)
                at, before = end + _CRC_BYTES, head
                continue
            span = end + _CRC_BYTES - at
            run = _run(buffer, at, span, head)  # all of one length at once
            records += np.ndarray((run,), f"V{size}", buffer, begin, (span,)).tolist()
            ends += range(end, end + run * span, span)
            at, streak = at + run * span, 0
        window.at = at
        return records, _words(buffer, ends)

    def _length(self, head: bytes) -> int | None:
        """Return the length that a head says; None: its checksum is another one."""
        if self._masked([head[:8]])[0] != _words(head, [8])[0]:
            return None
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        size: int = _LENGTH.unpack_from(head)[0]
        self._known[head] = size
        return size

    def first_bad(self, records: list[bytes], crcs: NDArray[np.uint32]) -> int | None:
        """Return which record has another checksum than it should have."""
        are_bad = self._masked(records) != crcs
        return int(are_bad.argmax()) if are_bad.any() else None

    def _masked(self, texts: list[bytes]) -> NDArray[np.uint32]:
        """Return checksums as they stand in files: of bytes that hold checksums, plain ones say little."""
        crcs = np.fromiter(map(self._crc32c, texts), np.uint32, len(texts))
        return ((crcs >> 15 | crcs << 17) + np.uint32(0xA282EAD8)).astype(np.uint32, copy=False)


def _run(buffer: bytes, at: int, span: int, head: bytes) -> int:
    """Return how many records from a place on, `span` bytes each with what stands around them, have one head."""
    heads = np.ndarray(((len(buffer) - at) // span,), f"V{_HEAD_BYTES}", buffer, at, (span,))
    are_other = heads != np.void(head)
    return int(are_other.argmax()) if are_other.any() else len(heads)


def _words(buffer: bytes, places: list[int]) -> NDArray[np.uint32]:
    """Return the u32[len(places)] that stand at some places, anywhere."""
    everywhere = np.ndarray((max(0, len(buffer) - 3),), "<u4", buffer, strides=(1,))
    return everywhere[np.array(places, np.int64)].astype(np.uint32)
