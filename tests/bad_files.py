"""Bad files: made from good ones by edits, so that each takes a line."""

import contextlib
import dataclasses
import json
import lzma
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostile_files import Draft, sign

from arsrc._host.format.layout import CHUNK_HEADER_BYTES, logical, parse_varint, physical

CORPUS = Path(__file__).parent / "corpus"

Edit = list[Any]  # its name, and numbers


@dataclasses.dataclass(frozen=True)
class Case:
    """A bad file.

    Attributes:
        base: The name of the good one.
        edits: What was done to it, in order.
        what: What is wrong with it, in words.
    """

    base: str
    edits: Sequence[Edit]
    what: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether hashes are right."""
        return any(edit[0] in ("draft", "sign") for edit in self.edits)

    @property
    def is_transposed(self) -> bool:
        """Whether there are transposed chunks with right hashes and other contents."""
        sources = [self.base, *(edit[1] for edit in self.edits if edit[0] == "splice")]
        made_so = any("transpose:true" in GOOD[name][0] for name in sources)
        return self.is_signed and (made_so or '"kind", "t"' in json.dumps(self.edits))


@dataclasses.dataclass(frozen=True)
class Base:
    """A good file, and where its records lie.

    Attributes:
        data: The file.
        records: Its records.
        heads: Of each record, the physical positions of what says where it is: the header of its chunk, and the sizes.
        values: Of each record, the physical positions of its bytes; those of the whole chunk where it is encoded.
    """

    data: bytes
    records: Sequence[bytes]
    heads: Sequence[range]
    values: Sequence[range]

    @classmethod
    def load(cls, name: str) -> "Base":
        data, (_, records) = lzma.decompress((CORPUS / f"{name}.xz").read_bytes()), GOOD[name]
        draft = Draft.of(data)
        draft.fill_in()
        heads, values = [], []
        for chunk, (begin, _, _) in zip(draft.chunks, draft.entries or (), strict=True):
            at = logical(begin) + CHUNK_HEADER_BYTES
            if chunk.kind != "r" or chunk.data[:1] != b"\0":
                heads += [range(begin, physical(at))] * chunk.num_records
                values += [range(physical(at), physical(at + len(chunk.data)))] * chunk.num_records
                continue
            size, first = parse_varint(chunk.data, 1)
            at += first + size
            heads += [range(begin, physical(at))] * chunk.num_records
            for record in records[len(values) : len(values) + chunk.num_records]:
                values.append(range(physical(at), physical(at + len(record))))
                at += len(record)
        return cls(data, records, heads, values)


# What the good files hold, and how `fuzz_files.py` has written them. Reading them here would start threads of
# array_record, after which no process can be forked.


def _texts(lengths: Sequence[int]) -> list[bytes]:
    """Records that differ, and compress well."""
    return [(b"%d;" % number * (length // 2 + 1))[:length] for number, length in enumerate(lengths)]


_NOISE = random.Random(0).randbytes(20_000)

GOOD: dict[str, tuple[str, list[bytes]]] = {
    "equal": ("group_size:1,uncompressed", _texts([40] * 50)),
    "ragged": ("group_size:1,uncompressed", _texts([0, 1, 500, 127, 128, 3, 0, 2000, 5] * 5)),
    "groups": ("group_size:7,uncompressed", _texts([30, 0, 200, 1] * 12)),
    "even-groups": ("group_size:8,uncompressed", _texts([25] * 50)),
    "large": ("group_size:1,uncompressed", _texts([70_000, 3, 150_000, 65_536, 0, 30_000])),
    "large-groups": ("group_size:3,uncompressed", _texts([30_000, 3, 70_000, 65_536, 0, 30_000, 1])),
    "padded": ("group_size:2,uncompressed,pad_to_block_boundary:true", _texts([100, 50, 7])),
    "zstd": ("group_size:1,zstd", _texts([40, 300, 0, 1000] * 10)),
    "zstd-noise": ("group_size:1,zstd", [random.Random(n).randbytes(60) for n in range(20)]),
    "zstd-groups": ("group_size:7,zstd", _texts([40, 300, 0, 1000] * 10)),
    "zstd-large": ("group_size:1,zstd", [b"%d" % n + _NOISE for n in range(8)]),
    "zstd-padded": ("group_size:2,zstd,pad_to_block_boundary:true", _texts([100, 50, 7])),
    "brotli": ("group_size:5,brotli", _texts([40, 300, 0, 1000] * 6)),
    "snappy": ("group_size:5,snappy", _texts([40, 300, 0, 1000] * 6)),
    "snappy-single": ("group_size:1,snappy", _texts([40, 300, 0, 1000] * 6)),
    "transposed": ("group_size:5,transpose:true,uncompressed", _texts([40, 300, 0, 100] * 6)),
    "transposed-zstd": ("group_size:5,transpose:true,zstd", _texts([40, 300, 0, 100] * 6)),
    "messages": ("group_size:8,transpose:true,brotli", [b"\x08%c\x12\x03abc" % n for n in range(40)]),
    "zeros": ("group_size:100,uncompressed", [b""] * 250),
    "zeros-zstd": ("group_size:100,zstd", [b""] * 250),
    "single": ("group_size:1,zstd", [b"one"]),
    "empty": ("group_size:1,uncompressed", []),
}


# Edits.


def edited(case: Case, bases: dict[str, Base]) -> bytes:
    """The bad file."""
    base = bases[case.base].data
    data = bytearray(base)
    for name, *arguments in case.edits:
        if name == "draft":
            draft = Draft.of(base)
            draft.fill_in()
            for lie, *values in arguments:
                with contextlib.suppress(IndexError):  # there are no chunks any more
                    _LIES[lie](draft, *values)
            data = bytearray(draft.bytes())
        elif name == "sign":
            sign(data, base)
        elif name == "splice":
            other, source, at, size = arguments
            data[at : at + size] = bases[other].data[source : source + size]
        else:
            _EDITS[name](data, *arguments)
    return bytes(data)


def _flip(data: bytearray, at: int, bit: int) -> None:
    if at < len(data):
        data[at] ^= 1 << bit


def _write(data: bytearray, at: int, text: str) -> None:
    data[at : at + len(text) // 2] = bytes.fromhex(text)


def _zero(data: bytearray, at: int, size: int) -> None:
    data[at : at + size] = bytes(len(data[at : at + size]))


def _copy(data: bytearray, source: int, at: int, size: int) -> None:
    data[at : at + size] = data[source : source + size]


def _swap(data: bytearray, a: int, b: int, size: int) -> None:
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _exchange(data: bytearray, a: int, a_size: int, b: int, b_size: int) -> None:
    """Let two parts change places, which need not be of the same size."""
    if a > b:
        a, a_size, b, b_size = b, b_size, a, a_size
    if a + a_size <= b:
        data[a : b + b_size] = data[b : b + b_size] + data[a + a_size : b] + data[a : a + a_size]


def _cut(data: bytearray, at: int, size: int) -> None:
    del data[at : at + size]


def _insert(data: bytearray, at: int, size: int) -> None:
    data[at:at] = bytes(size)


_EDITS: dict[str, Callable[..., None]] = {
    "flip": _flip, "write": _write, "zero": _zero, "copy": _copy, "swap": _swap, "exchange": _exchange, "cut": _cut,
    "insert": _insert,
}  # fmt: skip


def _entry(draft: Draft, number: int, column: int, value: int) -> None:
    draft.entries[number] = [*draft.entries[number][:column], value, *draft.entries[number][column + 1 :]]


def _chunk(draft: Draft, number: int, field: str, value: int) -> None:
    setattr(draft.chunks[number], field, value)


def _payload(draft: Draft, number: int, at: int, text: str) -> None:
    chunk = draft.chunks[number]
    data = bytearray(chunk.data)
    _write(data, at, text)
    chunk.data = bytes(data)


def _swap_chunks(draft: Draft, a: int, b: int) -> None:
    draft.chunks[a], draft.chunks[b] = draft.chunks[b], draft.chunks[a]


def _swap_entries(draft: Draft, a: int, b: int) -> None:
    draft.entries[a], draft.entries[b] = draft.entries[b], draft.entries[a]


_LIES: dict[str, Callable[..., Any]] = {
    "entry": _entry,
    "drop entry": lambda draft, number: draft.entries.pop(number),
    "repeat entry": lambda draft, number: draft.entries.insert(number, draft.entries[number]),
    "swap entries": _swap_entries,
    "count": lambda draft, column, value: draft.counts.__setitem__(column, value),
    "tail": lambda draft, text: setattr(draft, "tail", bytes.fromhex(text)),
    "move": lambda draft, number, size: draft.moved.__setitem__(number, size),
    "offset": lambda draft, value: setattr(draft, "offset", value),
    "footer": lambda draft, field, value: draft.footer.__setitem__(field, value),
    "postscript": lambda draft, field, value: draft.postscript.__setitem__(field, value),
    "compression": lambda draft, letter: setattr(draft, "compression", letter),
    "chunk": _chunk,
    "payload": _payload,
    "swap chunks": _swap_chunks,
    "drop chunk": lambda draft, number: draft.chunks.pop(number),
    "repeat chunk": lambda draft, number: draft.chunks.insert(number, draft.chunks[number]),
}
