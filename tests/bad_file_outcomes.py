"""What comes of reading bad files: each reader in processes that may end, with limits of memory and of time.

python tests/bad_file_outcomes.py < cases.json      # a list; one line a case and reader: [case, reader, verdict]
"""

import dataclasses
import faulthandler
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from bad_files import GOOD, Base, Case, edited

import arsrc
from arsrc._host import registry
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage.paths import FileSlice
from arsrc.codecs import Ragged
from arsrc.errors import ArsrcError

READERS = ("auto", "always", "cache")
MEMORY_BYTES = 4 << 30
SECONDS = 60.0  # where others take all cores
_STACK = "stack"  # where a process that hangs says what it does

# Reading.


def read(path: str, reader: str, base: Base) -> list[bytes | str] | str:
    """Read every record of a file; texts are those of errors.

    All are asked for at once, and then, if that fails, one by one.
    """
    try:
        if reader == "cache":
            num_records, read_some = _cached(path, max(map(len, base.records), default=1))
        else:
            memory = {"buffers": BufferPool(1 << 20), "groups": GroupCache(1 << 20)}
            options = {"max_open_files": 4, "random_access": True, **memory}
            data_set = DataSet([FileSlice(path)], checksum=reader, **options)
            num_records, read_some = data_set.num_records, lambda ids: data_set.read(ids).records
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
        one of the same size, or of another file, which nothing can tell; "other": with right hashes, the file holds
        other records, which are those that array_record's reader gives; else "wrong: ...".
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
    kinds = {row: _kind(case, reader, base, path, data, row, record) for row, record in bad.items()}
    wrong = [row for row, kind in kinds.items() if kind == "wrong"]
    return f"wrong: records {wrong[:5]}" if wrong else max(kinds.values())


def _kind(case: Case, reader: str, base: Base, path: str, data: bytes, row: int, record: bytes) -> str:
    """Say of a record that is not what it was why that is so."""
    is_as_long = row < len(base.records) and len(record) == len(base.records[row])
    others = [other for edit in case.edits if edit[0] == "splice" for other in GOOD[edit[1]][1]]
    if (is_as_long and record in base.records) or record in others:
        return "moved"
    if is_as_long and reader != "always" and _is_payload(base, data, row):
        return "payload"
    return "other" if case.is_signed and _official(path, row) == record else "wrong"


def _official(path: str, row: int) -> bytes | None:
    """What array_record's reader gives; harmless, since what opens here was checked."""
    try:
        return ArrayRecordReader(path).read([row])[0]
    except RuntimeError:
        return None


def _is_payload(base: Base, data: bytes, row: int) -> bool:
    """Whether what says where a record is was not changed, and its bytes were."""
    head, values = base.heads[row], base.values[row]
    there, here = (some[head.start : head.stop] for some in (data, base.data))
    is_same = (there[8:16], there[24:]) == (here[8:16], here[24:])  # all but hashes
    return is_same and data[values.start : values.stop] != base.data[values.start : values.stop]


# Processes.


def outcomes(cases: Sequence[Case], bases: dict[str, Base]) -> Iterator[tuple[int, str, str]]:
    """Read cases by each reader; yield (case, reader, verdict).

    Beside those of `verdict` there are "crash: ..." and "hang: ...", or "beyond: ..." in front of these, where
    transposed chunks have right hashes and lie: array_record's decoder of such chunks believes what stands there.
    """
    todo = [(number, reader) for number in range(len(cases)) for reader in READERS]
    with tempfile.TemporaryDirectory() as folder:
        while todo:
            done = 0
            for text in _in_child(todo[:400], cases, bases, folder):
                case = cases[todo[done][0]]
                is_beyond = case.is_transposed and text.startswith(("crash", "hang"))
                yield (*todo[done], f"beyond: {text}" if is_beyond else text)
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
                os.kill(pid, signal.SIGUSR1)
                time.sleep(1.0)
                yield "hang: " + Path(f"{folder}/{_STACK}").read_text()[:2000]
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
        faulthandler.register(signal.SIGUSR1, file=open(f"{folder}/{_STACK}", "w"))  # noqa: SIM115
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
