"""Bad files: made from good ones by edits, read in processes of their own, and judged.

A case names a good file, its base, and the edits that make it bad, so that it takes a line. What may come of reading
it is the records of the base or an error of arsrc: see `verdict`.

    python tests/bad_files.py < cases.json       # a list; one line for each case and reader: [case, reader, verdict]
"""

import contextlib
import dataclasses
import json
import lzma
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from hostile_files import Draft, sign

import arsrc
from arsrc._host import registry
from arsrc._host.format.layout import CHUNK_HEADER_BYTES, logical, parse_varint, physical
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.records.data_set import DataSet
from arsrc.codecs import Ragged
from arsrc.errors import ArsrcError
from arsrc.paths import FileSlice

CORPUS = Path(__file__).parent / "corpus"
READERS = ("auto", "always", "cache")
MEMORY_BYTES = 4 << 30
SECONDS = 20.0

Edit = list[Any]


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


# Reading.


def read(path: str, reader: str, base: Base) -> list[bytes | str] | str:
    """Read every record of a file; texts are those of errors.

    All are asked for at once, and then, if that fails, one by one.
    """
    try:
        if reader == "cache":
            num_records, read_some = _cached(path, max(map(len, base.records), default=1))
        else:
            buffers = BufferPool(1 << 20)
            options = {"max_open_files": 4, "random_access": True, "buffers": buffers}
            data_set = DataSet([FileSlice(path)], checksum=reader, **options)
            num_records, read_some = data_set.num_records, data_set.read
    except ArsrcError as error:
        return str(error)
    ids = np.arange(num_records) if num_records < 10_000 else np.array([0, num_records - 1])
    try:
        records = read_some(ids)
        return [bytes(records[row]) for row in range(len(ids))]
    except ArsrcError:
        return [_one(read_some, number) for number in ids]


def _cached(path: str, max_length: int) -> tuple[int, Callable[[Any], Any]]:
    """Read twice, at last from what is kept of the first time."""
    config = arsrc.ArrayRecordSourceConfig(path, 1, Ragged(max_length=max(max_length, 1)), cacheable=True)
    source = registry.source(config)

    def read_some(ids: Any) -> list[bytes]:
        source.take(ids[None].astype(np.uint32))
        lengths, values = (leaf[0] for leaf in source.take(ids[None].astype(np.uint32)))
        return [row[:length].tobytes() for row, length in zip(values, lengths, strict=True)]

    return source.plan.num_records, read_some


def _one(read_some: Callable[[Any], Any], number: int) -> bytes | str:
    try:
        return bytes(read_some(np.array([number]))[0])
    except ArsrcError as error:
        return str(error)


def verdict(case: Case, reader: str, found: list[bytes | str] | str, base: Base, path: str) -> str:
    """Judge what was read of a bad file.

    Returns:
        "refused": nothing could be read; "partly": what could be read is right; "right": all of it is; "payload":
        bytes of records were changed and are served so, which only hashes can tell; "moved": a chunk is in the place of
        one of the same size, which nothing can tell; "other": with right hashes, the file holds other records, which
        are those that array_record's reader gives; else "wrong: ...".
    """
    errors = [found] if isinstance(found, str) else [text for text in found if isinstance(text, str)]
    if wrong := [text for text in errors if not text.startswith("[arsrc] ")]:
        return f"wrong: an error of another form, {wrong[0]}"
    served = {} if isinstance(found, str) else {row: it for row, it in enumerate(found) if isinstance(it, bytes)}
    good = dict(enumerate(base.records))
    bad = {row: record for row, record in served.items() if good.get(row) != record}
    if not bad:
        return "refused" if not served else "right" if len(served) == len(good) else "partly"
    data = Path(path).read_bytes()
    if all(row in good and len(record) == len(good[row]) and record in base.records for row, record in bad.items()):
        return "moved"
    if reader != "always" and all(row in good and _is_payload(base, data, row, it) for row, it in bad.items()):
        return "payload"
    if case.is_signed and all(_official(path, row) == record for row, record in bad.items()):
        return "other"
    return f"wrong: records {list(bad)[:5]}"


def _official(path: str, row: int) -> bytes | None:
    """What array_record's reader gives; harmless, since what opens here was checked."""
    try:
        return ArrayRecordReader(path).read([row])[0]
    except RuntimeError:
        return None


def _is_payload(base: Base, data: bytes, row: int, record: bytes) -> bool:
    """Whether a record is as long as it was, what says where it is was not changed, and its bytes were."""
    same_head, same_values = (
        data[part.start : part.stop] == base.data[part.start : part.stop]
        for part in (base.heads[row], base.values[row])
    )
    return same_head and not same_values and len(record) == len(base.records[row])


# Processes.


def outcomes(cases: Sequence[Case], bases: dict[str, Base]) -> Iterator[tuple[int, str, str]]:
    """Read cases by each reader; yield (case, reader, verdict), which may be "crash: ..." or "hang"."""
    todo = [(number, reader) for number in range(len(cases)) for reader in READERS]
    with tempfile.TemporaryDirectory() as folder:
        while todo:
            done = 0
            for text in _in_child(todo[:400], cases, bases, folder):
                yield (*todo[done], text)
                done += 1
            todo = todo[done:]


def _in_child(
    todo: Sequence[tuple[int, str]], cases: Sequence[Case], bases: dict[str, Base], folder: str
) -> Iterator[str]:
    """Yield one verdict after the other, up to one that is the end of the process."""
    source, sink = os.pipe()
    if not (pid := os.fork()):
        os.close(source)
        _work(todo, cases, bases, folder, sink)
    os.close(sink)
    buffer, num_done, seconds = b"", 0, SECONDS
    try:
        while num_done < len(todo):
            if not select.select([source], [], [], seconds)[0]:
                yield "hang"
                return
            if not (part := os.read(source, 1 << 16)):
                ended, pid = pid, 0
                yield f"crash: {os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])}"
                return
            *texts, buffer = (buffer + part).split(b"\0")
            num_done += len(texts)
            yield from (text.decode() for text in texts)
    finally:
        os.close(source)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _work(
    todo: Sequence[tuple[int, str]], cases: Sequence[Case], bases: dict[str, Base], folder: str, sink: int
) -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number, reader in todo:
            case, base, path = cases[number], bases[cases[number].base], f"{folder}/{number}"
            if not os.path.exists(path):
                Path(path).write_bytes(edited(case, bases))
            try:
                text = verdict(case, reader, read(path, reader, base), base, path)
            except Exception as error:
                text = f"wrong: {type(error).__name__}: {error}"
            if reader == READERS[-1]:
                os.unlink(path)
            os.write(sink, text[:300].replace("\0", "").encode(errors="replace") + b"\0")
    finally:
        os._exit(0)


def run(cases: Sequence[Case]) -> list[tuple[Case, str, str]]:
    """Read cases in a process in which nothing else has run; return (case, reader, verdict)."""
    text = json.dumps([dataclasses.astuple(case) for case in cases])
    done = subprocess.run([sys.executable, __file__], input=text, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(cases[number], reader, verdict) for number, reader, verdict in found]


def main() -> None:
    cases = [Case(*fields) for fields in json.load(sys.stdin)]
    bases = {name: Base.load(name) for name in {case.base for case in cases} | _spliced(cases)}
    for line in outcomes(cases, bases):
        print(json.dumps(line))


def _spliced(cases: Sequence[Case]) -> set[str]:
    return {edit[1] for case in cases for edit in case.edits if edit[0] == "splice"}


if __name__ == "__main__":
    main()
