"""What is rough from outside: odd paths, odd values, odd codecs, and too little of everything.

All of it ends in typed errors that name what they are about, in good time, and the source goes on.
"""

import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc.codecs import Bytes, Map, Ragged, RecordBatch, Struct
from arsrc.codecs.decoder import ElementDecoder
from arsrc.errors import message

RECORDS = [bytes([i]) * 8 for i in range(40)]
LARGE = [bytes([i]) * 20_000 for i in range(40)]
MAPPED = "group_size:1,uncompressed"
TYPED = (arsrc.ArsrcError, jax.errors.JaxRuntimeError, ValueError)


@pytest.fixture
def good(tmp_path: Path, write_records: Any) -> str:
    return write_records(tmp_path / "good", RECORDS, MAPPED)


def check_usable(path: str) -> None:
    config = ArrayRecordSourceConfig(path, batch_size=4)
    assert arsrc.next_batch(config, arsrc.init(config))[1].data[3].tolist() == [3] * 8


# Paths.

ODD_PATHS = [
    "dangling", "loop", "dangling/x", "loop/x", "good/x", "fifo", "to_fifo", "fifo[0:3]", "fifo/x", "fif*", "dang*",
    "lo*p", "sock", "folder", "folder/", "to_folder", "/dev/null", "/dev/zero", "/dev/zero[0:3]", "set@2", "set@*",
    "a\0b", "*\0", "a\0[0:3]", "\ud800", "\ud800*", "miss\udcff", "miss\udcff*", "n" * 256, "n" * 300 + "*",
    "n/" * 4000, "n" * 1_000_000, "~a\0", ".", "..", "/", "good[0:" + "9" * 30 + "]", "good[0:" + "9" * 5000 + "]",
]  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path, good: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for link, to in (("dangling", "gone"), ("loop", "loop"), ("to_fifo", "fifo"), ("to_folder", "folder")):
        Path(link).symlink_to(to)
    os.mkfifo("fifo")
    Path("folder").mkdir()
    os.mkfifo("set-00000-of-00002")
    os.link(good, "set-00001-of-00002")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("sock")
        yield tmp_path


@pytest.mark.parametrize("checksum", ["auto", "always"])
@pytest.mark.parametrize("local_files_only", [False, True])
def test_odd_paths_are_typed_errors_that_name_the_path_and_do_not_wait(odd, good, local_files_only, checksum):
    read = ReadOptions(checksum=checksum)
    for path in ODD_PATHS:
        with pytest.raises(arsrc.ArsrcError) as caught:
            arsrc.init(ArrayRecordSourceConfig(path, 2, local_files_only=local_files_only, read=read))
        text = str(caught.value)
        assert text.startswith("[arsrc] paths: "), path
        assert "; got path='" in text or "; got missing=['" in text, text
        assert len(text) < 6000
        assert text.encode()
    check_usable(good)


@pytest.mark.parametrize("options", [MAPPED, "group_size:4"])
@pytest.mark.parametrize("checksum", ["auto", "always"])
def test_names_that_are_no_utf_8_are_read_and_written(tmp_path, options, checksum):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    path = str(folder / os.fsdecode(b"\xfe"))
    read = ReadOptions(checksum=checksum, cache_bytes=0, cache_dir=str(folder / "cache"))
    assert arsrc.write_array_record(path, RECORDS, options=options) == (path,)
    for paths in (path, f"{path}*", f"{path}[0:40]"):
        config = ArrayRecordSourceConfig(paths, 8, codec=Bytes(), read=read, cacheable=True)
        state = arsrc.from_state_dict(
            config, json.loads(json.dumps(arsrc.to_state_dict(config, arsrc.advance(config, arsrc.init(config)))))
        )
        assert next(arsrc.iterate(config, state))[1].data[0].tolist() == [8] * 8
        arsrc.close(config)
    shards = arsrc.write_array_record(f"{path}-set", RECORDS, num_shards=2)
    assert arsrc.num_records(ArrayRecordSourceConfig(shards, 2)) == 40


@pytest.mark.parametrize("options", [MAPPED, "group_size:4"])
def test_nothing_waits_where_a_fifo_took_the_place_of_an_open_file(tmp_path, write_records, options):
    path = write_records(tmp_path / "a", RECORDS, options)
    config = ArrayRecordSourceConfig(path, 4, read=ReadOptions(max_open_files=1, ahead="never"))
    state = arsrc.init(config)
    os.rename(path, tmp_path / "b")
    os.mkfifo(path)
    for call in (arsrc.fingerprint, arsrc.init, arsrc.load_resident, lambda config: next(arsrc.iterate(config, state))):
        with pytest.raises(arsrc.ArsrcError, match="FIFO"):
            call(config)
    os.rename(tmp_path / "b", path)
    check_usable(path)


def test_a_working_folder_that_is_gone_is_an_error_for_relative_paths(tmp_path, good, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for make in (
        lambda: ArrayRecordSourceConfig("a", 2),
        lambda: ReadOptions(cache_dir="a"),
        lambda: arsrc.write_array_record("a", RECORDS),
    ):
        with pytest.raises(arsrc.ArsrcFileNotFoundError, match="the working folder is not to be found"):
            make()
    check_usable(good)


# Messages.


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_no_part_of_a_message_is_long_and_all_of_it_can_be_printed():
    text = message("where" * 9000, "what" * 9000, "fix" * 9000, a="<" + "a" * 99_999 + ">", b=[Unshowable()])
    assert len(text) < 9000
    assert "a='<aaa" in text
    assert "aaa>', b=<list>" in message("", "", a="<" + "a" * 99_999 + ">", b=[Unshowable()])
    assert message("a", "b\udcff\0", c="\udcff") == "[arsrc] a: b\\udcff\\0; got c='\\udcff'."


@pytest.mark.parametrize("error", [ValueError("e" * 100_000), ValueError("\udcff\0"), Unspeakable()])
def test_whatever_a_user_s_function_raises_is_told(good, error):
    def fails(record: bytes) -> Any:
        raise error if record[0] == 5 else ValueError("no error")

    def decode(record: bytes) -> Any:
        return fails(record) if record[0] == 5 else np.uint8(record[0])

    config = ArrayRecordSourceConfig(good, 4, codec=Map(decode, "uint8"))
    state = arsrc.state_at(config, 1)
    with pytest.raises(TYPED) as caught:
        jax.jit(lambda state: arsrc.next_batch(config, state))(state)[1].data.block_until_ready()
    assert "record 5 (record 5 of" in str(caught.value)
    assert "in fails" in str(caught.value)
    with pytest.raises(arsrc.ArsrcValueError, match="record 5 ") as told:
        next(arsrc.iterate(config, state))
    assert len(str(told.value).encode()) < 5000
    assert next(arsrc.iterate(config))[1].data.tolist() == [0, 1, 2, 3]


# States.

BAD_NUMBERS = [3.0, float("nan"), -1, 2**32, 10**5000, "3", b"3", None, True, [3], np.array([3]), np.array("3"),
               np.float32(3), jnp.float32(3), np.bool_(True), Unshowable(), "y" * 200_000, {}, 2**64]  # fmt: skip
BAD_FIELDS = {
    "index": BAD_NUMBERS,
    "epoch": BAD_NUMBERS,
    "version": [3, -1, "1", None, np.array([1, 1]), 1.0, True, 10**5000],
    "key_words": [[0], [], [0.0, 1.0], [-1, 2], ["0", "1"], "ab", b"ab", None, {0: 1, 1: 2}, np.zeros((1, 2), int),
                  [True, False], [10**5000, 1], [Unshowable(), 1], iter([0, 1]), list(range(100_000))],
    "key_impl": ["x", None, 3, b"threefry2x32", Unshowable(), "y" * 100_000],
    "fingerprint": ["x", None, 3, np.array([1, 2]), Unshowable(), "z" * 200_000],
    "exclude": [[[3]], [3, 4], None, 3, "ab", [["3", "4"]], [[3.0, 4.0]], [[-1, 4]], [[5, 3]], [[0, 10**5000]],
                {3: 4}, [[Unshowable(), 4]], np.array(3), [[True, 4]]],
}  # fmt: skip


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_what_is_no_field_of_a_state_is_a_short_error(good, field):
    config = ArrayRecordSourceConfig(good, 4)
    saved = arsrc.to_state_dict(config, arsrc.init(config))
    for value in BAD_FIELDS[field]:
        with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] from_state_dict: ") as caught:
            arsrc.from_state_dict(config, saved | {field: value})
        assert len(str(caught.value)) < 9000


def test_a_state_that_a_saver_of_arrays_gives_back_is_the_state(good, tmp_path):
    config = ArrayRecordSourceConfig(good, 4, exclude=[3, (5, 7)])
    state = arsrc.state_at(config, 12)
    np.savez(tmp_path / "state.npz", **arsrc.to_state_dict(config, state))
    with np.load(tmp_path / "state.npz") as saved:
        again = arsrc.from_state_dict(config, saved)
    assert (int(again.index), int(again.epoch)) == (int(state.index), int(state.epoch)) == (8, 1)
    assert again.key == state.key


@pytest.mark.parametrize("which", ["index", "epoch", "key", "all"])
def test_a_donated_state_is_said_to_be_one(good, which):
    config = ArrayRecordSourceConfig(good, 4)
    kept = arsrc.init(config)
    step = jax.jit(lambda state: arsrc.next_batch(config, state)[0], donate_argnums=0)
    calls: list[Callable[[Any], Any]] = [
        functools.partial(arsrc.next_batch, config),
        functools.partial(arsrc.advance, config),
        functools.partial(arsrc.record_ids, config),
        functools.partial(arsrc.to_state_dict, config),
        functools.partial(arsrc.iterate, config),
        lambda state: arsrc.next_batches(config, state, 2),
        lambda state: arsrc.batch_at(config, state, 0),
        lambda state: arsrc.locate(config, state, 3),
        lambda state: arsrc.operation_stats(config, kept, state),
    ]
    for call in calls:
        state = arsrc.init(config)
        if which == "all":
            step(state)
        else:
            getattr(state, which).delete()
        with pytest.raises(arsrc.ArsrcValueError, match="donated"):
            call(state)
    check_usable(good)


# What codecs give, and do.


class OfRows:
    """A codec of one's own that gives the bytes of records as `give` hands them out."""

    def __init__(self, num_bytes: int, give: Callable[["OfRows", np.ndarray], Any]) -> None:
        self.num_bytes, self.give, self.kept = num_bytes, give, {}  # type: ignore[var-annotated]

    def resolve(self, first_record: bytes) -> "OfRows":
        return self

    def element_spec(self) -> Any:
        return jax.ShapeDtypeStruct((self.num_bytes,), np.uint8)

    def decode(self, records: RecordBatch) -> Any:
        return self.give(self, records.data.reshape(len(records), self.num_bytes))

    def encode(self, elements: Any) -> Any:
        return self.give(self, elements)


def filled(buffer: np.ndarray, rows: np.ndarray) -> np.ndarray:
    buffer[...] = rows
    return buffer


def into_kept(make: Callable[["OfRows", np.ndarray], np.ndarray]) -> Callable[["OfRows", np.ndarray], np.ndarray]:
    return lambda codec, rows: filled(codec.kept.setdefault(rows.shape, make(codec, rows)), rows)


def part_of_kept(codec: OfRows, rows: np.ndarray) -> np.ndarray:
    buffer = codec.kept.setdefault(0, np.empty((1000, codec.num_bytes), np.uint8))
    return filled(buffer[: len(rows)], rows)


def of_bytearray(codec: OfRows, rows: np.ndarray) -> np.ndarray:
    buffer = codec.kept.setdefault(0, bytearray(1000 * codec.num_bytes))
    return filled(np.frombuffer(buffer, np.uint8)[: rows.size].reshape(rows.shape), rows)


def in_turns(codec: OfRows, rows: np.ndarray) -> np.ndarray:
    codec.kept["turn"] = turn = (codec.kept.get("turn", 0) + 1) % 3
    return filled(codec.kept.setdefault(turn, np.empty((1000, codec.num_bytes), np.uint8))[: len(rows)], rows)


def last_kept(codec: OfRows, rows: np.ndarray) -> np.ndarray:
    for before in codec.kept.values():
        before[...] = 0
    codec.kept["last"] = found = np.array(rows)
    return found


KEEPING = {
    "the same array": into_kept(lambda codec, rows: np.empty_like(rows)),
    "the same view": into_kept(lambda codec, rows: np.empty(rows.size + 1, np.uint8)[1:].reshape(rows.shape)),
    "a part of it": part_of_kept,
    "a view of a bytearray": of_bytearray,
    "three in turns": in_turns,
    "the last one": last_kept,
}
FILES = {"mapped": (RECORDS, MAPPED), "compressed": (RECORDS, "group_size:4"), "large": (LARGE, MAPPED)}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", KEEPING)
def test_what_a_codec_uses_again_changes_no_batch_that_it_gave(tmp_path, write_records, file, kind):
    records, options = FILES[file]
    path = write_records(tmp_path / "a", records, options)
    wanted = [record[0] for record in records]
    for ahead in ("always", "never"):
        codec = OfRows(len(records[0]), KEEPING[kind])
        config = ArrayRecordSourceConfig(path, 4, codec=codec, num_epochs=1, read=ReadOptions(ahead=ahead))
        batches = [batch.data for _, batch in arsrc.iterate(config)]
        assert [int(row[-1]) for batch in batches for row in batch] == wanted
        assert arsrc.load_resident(config)[:, 0].tolist() == wanted
        arsrc.close(config)


@pytest.mark.parametrize("file", FILES)
def test_nor_does_it_in_programs(tmp_path, write_records, file):
    records, options = FILES[file]
    path = write_records(tmp_path / "a", records, options)
    wanted = [record[0] for record in records]
    codec = OfRows(len(records[0]), part_of_kept)
    config = ArrayRecordSourceConfig(path, 4, codec=codec, read=ReadOptions(ahead="always"))
    state = arsrc.init(config)
    for step in range(30):
        state, batch = arsrc.next_batch(config, state)
        assert batch.data[:, 0].tolist() == wanted[4 * (step % 10) :][:4]


def test_what_is_nobody_else_s_is_not_copied():
    records = RecordBatch.from_records(RECORDS)
    spec = {"a": ("uint8", 4), "b": "uint8", "c": ("uint8", 3)}
    fresh = OfRows(8, lambda codec, rows: np.array(rows)[:, :])
    for codec in (
        Bytes(8),
        Struct(spec),
        Ragged(max_length=9),
        Map(lambda record: np.uint8(record[0]), "uint8"),
        fresh,
    ):
        decoder, places = ElementDecoder(codec), list[int]()
        decoder._leaves = functools.partial(noted, decoder._leaves, places)  # type: ignore[method-assign]
        leaves = decoder.decode(records)
        assert [leaf.ctypes.data for leaf in leaves] == places, codec


def noted(decode: Callable[[RecordBatch], list[np.ndarray]], places: list[int], records: RecordBatch) -> Any:
    leaves = decode(records)
    places.extend(leaf.ctypes.data for leaf in leaves)
    return leaves


def writes(codec: OfRows, rows: np.ndarray) -> np.ndarray:
    rows[0] = 1
    return rows


@pytest.mark.parametrize("options", [MAPPED, "group_size:4", "group_size:4,uncompressed"])
@pytest.mark.parametrize("checksum", ["auto", "always"])
@pytest.mark.parametrize("length", [8, 20_000])
def test_no_reader_gives_a_codec_what_it_can_write_into(tmp_path, write_records, length, checksum, options):
    path = write_records(tmp_path / "a", [bytes(length)] * 40, options)
    config = ArrayRecordSourceConfig(path, 4, codec=OfRows(length, writes), read=ReadOptions(checksum=checksum))
    state = arsrc.init(config)
    reads: list[Callable[[], Any]] = [
        lambda: next(arsrc.iterate(config)),
        functools.partial(arsrc.load_resident, config),
    ]
    if checksum == "auto":
        reads.append(lambda: jax.block_until_ready(arsrc.next_batches(config, state, 9)))
    for read in reads:
        with pytest.raises(TYPED, match="read-only") as caught:
            read()
        assert "in writes" in str(caught.value)
    arsrc.close(config)


def raises(kind: type[BaseException]) -> Callable[[OfRows, np.ndarray], Any]:
    def gives(codec: OfRows, rows: np.ndarray) -> Any:
        raise kind("a reason")

    return gives


@pytest.mark.parametrize("ahead", ["always", "never"])
@pytest.mark.parametrize("kind", [MemoryError, RecursionError])
def test_whatever_a_codec_raises_is_an_error_of_its_records_and_ends_nothing(good, kind, ahead):
    check_raised(good, kind, ReadOptions(ahead=ahead), raises(kind))


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_whatever_a_codec_raises_on_a_thread_ends_nothing(good, kind):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(check_raised, good, kind, ReadOptions(), raises(kind)).result(60)


def check_raised(good: str, kind: type[BaseException], read: ReadOptions, gives: Callable[..., Any]) -> None:
    """Raise unless what a codec raises, alone or for all its records, is an error of these and leaves all usable."""
    name = f"{kind.__name__}: a reason"
    whole = ArrayRecordSourceConfig(good, 4, codec=OfRows(8, gives), read=read)
    with pytest.raises(arsrc.ArsrcValueError, match=f"OfRows raised {name}(?s:.*)in gives"):
        next(arsrc.iterate(whole))
    with pytest.raises(TYPED, match=f"OfRows raised {name}"):
        jax.jit(lambda state: arsrc.next_batch(whole, state))(arsrc.init(whole))[1].data.block_until_ready()

    def one(record: bytes) -> Any:
        return np.uint8(record[0]) if record[0] != 5 else gives(None, None)

    each = ArrayRecordSourceConfig(good, 4, codec=Map(one, "uint8"), read=read)
    with pytest.raises(arsrc.ArsrcValueError, match=rf"record 5 .*raised {name}(?s:.*)in one"):
        list(arsrc.iterate(each))
    arsrc.close()
    check_usable(good)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_a_signal_handler_raises_inside_a_codec_stays_what_it_is(good, kind):
    interrupt = raises(kind)
    for codec in (OfRows(8, interrupt), Map(functools.partial(interrupt, None), "uint8")):
        config = ArrayRecordSourceConfig(good, 4, codec=codec, read=ReadOptions(ahead="never"))
        with pytest.raises(kind, match="a reason"):
            next(arsrc.iterate(config))


@dataclasses.dataclass(frozen=True)
class Unhashable(Bytes):
    def __hash__(self) -> int:
        raise RuntimeError("no hash")


def test_a_codec_that_cannot_be_hashed_is_an_error_however_it_says_so(good):
    with pytest.raises(arsrc.ArsrcTypeError, match="RuntimeError: no hash"):
        ArrayRecordSourceConfig(good, 4, codec=Unhashable())


WRONG_RECORDS = {
    "nothing": lambda codec, rows: None,
    "a list": lambda codec, rows: [b"x"] * len(rows),
    "too few": lambda codec, rows: RecordBatch.from_records([b"x"]),
    "offsets that go back": lambda codec, rows: RecordBatch(rows.ravel(), np.array([0, 9, 3, 4])),
    "offsets below zero": lambda codec, rows: RecordBatch(rows.ravel(), np.array([-3, 0, 3, 4])),
    "offsets beyond": lambda codec, rows: RecordBatch(rows.ravel(), np.array([0, 1, 2, 99])),
    "offsets of floats": lambda codec, rows: RecordBatch(rows.ravel(), np.arange(4.0)),
    "words": lambda codec, rows: RecordBatch(rows.ravel().astype(np.int32), np.arange(4)),
    "an exception": lambda codec, rows: 1 // 0,
}


@pytest.mark.parametrize("what", WRONG_RECORDS)
def test_what_encode_gives_is_looked_at_before_it_is_written(tmp_path, what):
    codec = OfRows(8, WRONG_RECORDS[what])
    with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] codec: OfRows.encode "):
        arsrc.write_array_record(tmp_path / "a", np.zeros((3, 8), np.uint8), codec=codec)
    assert not list(tmp_path.iterdir())


# Too little of everything, in processes of their own.

LITTLE = """
import resource, sys, os
import jax, numpy as np
import arsrc
sys.path.insert(0, sys.argv[2])
from test_raw_errors import OfRows

path = sys.argv[1]
def config(num_bytes):
    give = lambda codec, rows: np.zeros((len(rows), num_bytes), np.uint8)
    codec = OfRows(8, give)
    codec.element_spec = lambda: jax.ShapeDtypeStruct((num_bytes,), np.uint8)
    return arsrc.ArrayRecordSourceConfig(path, 4, codec=codec)

def told(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except arsrc.ArsrcError as error:
        return str(error)

good = arsrc.ArrayRecordSourceConfig(path, 4)
arsrc.next_batch(good, arsrc.init(good))
host, device = config(40_000_000), config(15_000_000)
arsrc.init(host), arsrc.init(device)
limit = int(open("/proc/self/statm").read().split()[0]) * 4096 + 1_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
for one, num_bytes in ((host, 1_600_000_000), (device, 600_000_000)):
    text = told(arsrc.load_resident, one)
    assert text and f"needs {num_bytes} bytes" in text and "memory ran out" in text, text
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
folder = os.path.dirname(path)
before = set(os.listdir(folder))
for limit in range(len(os.listdir("/proc/self/fd")), 40, 3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    text = told(arsrc.write_array_record, folder + "/many", iter([b"x"] * 100), num_shards=60)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert text and "Too many open files" in text and folder in text, text
    left = set(os.listdir(folder)) - before
    assert not [name for name in left if "00" in name], left
assert arsrc.next_batch(good, arsrc.init(good))[1].data[3, 0] == 3
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process, as Linux has them")
@pytest.mark.processes
def test_too_little_memory_and_too_few_descriptors_are_typed_errors(good):
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, good, here], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
