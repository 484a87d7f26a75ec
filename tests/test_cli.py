"""The command line: what it prints, its exit codes, and that no traceback is seen."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

import arsrc
from arsrc._host.machine import starting
from arsrc._host.readers.verifying import Verification
from arsrc._host.storage import paths
from arsrc.cli import COMMANDS, head, main, tables
from arsrc.cli.file_facts import histogram
from arsrc.cli.verify import exclude_text
from arsrc.open_paths import data_set_of

NUM_RECORDS = 60
RECORDS = [bytes([number]) * (500 + 13 * number) for number in range(NUM_RECORDS)]
OPTIONS = {
    "mapped": "group_size:1,uncompressed",
    "zstd": "group_size:1,zstd",
    "groups": "group_size:7,zstd",
    "plain groups": "group_size:7,uncompressed",
    "snappy": "group_size:1,snappy",
    "transposed": "group_size:7,transpose:true,brotli",
}

IN_HEADER = 64 + 8  # of the first chunk: its size, which every reader looks at

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(*args)`: run a command here; return its exit code, and what it writes."""

    def run_it(*args: str) -> tuple[int, str, str]:
        code = main(args)
        written = capsys.readouterr()
        assert "Traceback" not in written.out + written.err
        return code, written.out, written.err

    return run_it


@contextlib.contextmanager
def process(*args: str, platform: str = "none_such") -> Iterator[subprocess.Popen[str]]:
    """Run Python in a process of its own, where JAX finds no device unless a platform is named that there is."""
    environment = os.environ | {"JAX_PLATFORMS": platform}
    command = [sys.executable, "-W", "error", *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture(params=OPTIONS)
def path(request: pytest.FixtureRequest, tmp_path: Path, write_records: Any) -> str:
    """A file of each kind."""
    return write_records(tmp_path / "x.array_record", RECORDS, OPTIONS[request.param])


@pytest.fixture
def mapped(tmp_path: Path, write_records: Any) -> str:
    return write_records(tmp_path / "mapped.array_record", RECORDS, OPTIONS["mapped"])


# All commands.


def test_help_names_all_commands_and_each_has_its_own(run: Run):
    code, listed, _ = run("--help")
    assert code == 0
    for name, command in COMMANDS.items():
        assert command.SUMMARY in listed
        code, out, _ = run(name, "--help")
        assert code == 0
        assert f"usage: arsrc {name}" in out


def test_the_version_is_that_of_the_package(run: Run):
    assert run("--version") == (0, f"arsrc {arsrc.__version__}\n", "")


@pytest.mark.parametrize(
    "args",
    [
        (), ("no-such",), ("info",), ("head", "x", "-n", "-1"), ("head", "x", "-n", "a"), ("info", "x", "--no-such"),
        ("bench", "x", "--batch-sizes", "0"), ("bench", "x", "--batch-sizes", "1,,2"),
        ("bench", "x", "--seconds", "nan"), ("bench", "x", "--seconds", "0"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(args: Sequence[str], run: Run):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"arsrc: error: .*\. See arsrc.* --help\.\n", err)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_wrong_is_one_line_and_exit_code_1(name: str, run: Run, tmp_path: Path):
    extra = (str(tmp_path / "out.array_record"),) if name == "convert" else ()
    code, out, err = run(name, str(tmp_path / "gone"), *extra)
    assert (code, out) == (1, "")
    assert err.startswith("arsrc: error: paths: 1 of 1 paths match no file; got missing=[")


def test_an_interrupt_ends_with_130_and_without_a_word(monkeypatch: pytest.MonkeyPatch, run: Run, mapped: str):
    def interrupt(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["info"], "run", interrupt)
    assert run("info", mapped) == (130, "", "")


def test_errors_of_callbacks_are_shown_as_others_are(monkeypatch: pytest.MonkeyPatch, run: Run, mapped: str):
    def fail(_: Any) -> int:
        raise ValueError("INTERNAL: CpuCallback error:\nTraceback: ...\narsrc.errors: [arsrc] read: is bad. Do it.\n")

    monkeypatch.setattr(COMMANDS["info"], "run", fail)
    assert main(["info", mapped]) == 1
    monkeypatch.setattr(COMMANDS["info"], "run", lambda _: int("no error of ours"))
    with pytest.raises(ValueError, match="no error of ours"):
        main(["info", mapped])


def test_memory_that_runs_out_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, run: Run, mapped: str):
    def fail(_: Any) -> int:
        raise MemoryError

    monkeypatch.setattr(COMMANDS["info"], "run", fail)
    assert run("info", mapped) == (1, "", "arsrc: error: MemoryError\n")


@pytest.mark.processes
def test_no_command_but_bench_touches_a_device(mapped: str):
    code = f"""
from arsrc.cli import main
codes = [main(["info", {mapped!r}]), main(["head", {mapped!r}]), main(["verify", {mapped!r}])]
assert codes == [0, 0, 0], codes
try:
    main(["bench", {mapped!r}, "--seconds", "0.01"])
except RuntimeError as error:
    assert "none_such" in str(error)
"""
    with process("-c", code) as done:
        out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    assert "all are good" in out


@pytest.mark.processes
def test_a_pipe_that_nobody_reads_any_more_ends_the_command_in_silence(mapped: str):
    with process("-m", "arsrc", "head", *[mapped] * 100, "-n", "100000") as head:
        assert head.stdout is not None
        assert head.stderr is not None
        assert head.stdout.read(8) == "record 0"
        head.stdout.close()
        assert head.stderr.read() == ""
        assert head.wait(timeout=60) == 141


@pytest.mark.processes
@pytest.mark.parametrize(("closed", "error"), [("1", "arsrc: error: standard output is closed\n"), ("2", "")])
def test_a_stream_that_is_closed_from_the_start_harms_nobody(closed: str, error: str, mapped: str):
    command = f'exec "$0" -W error -m arsrc head {mapped if closed == "1" else "gone"} {closed}>&-'
    with subprocess.Popen(
        ["sh", "-c", command, sys.executable], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as head:
        assert head.communicate(timeout=60) == ("", error)
        assert head.returncode == 1


def test_an_empty_path_is_refused_as_a_path(run: Run):
    code, out, err = run("info", "")
    assert (code, out) == (1, "")
    assert err.startswith("arsrc: error: paths: ")


@pytest.mark.processes
def test_ctrl_c_ends_a_long_command_without_a_traceback(mapped: str):
    args = "-m", "arsrc", "bench", mapped, "--batch-sizes", "4", "--seconds", "3600"
    with process(*args, platform="cpu") as bench:
        while sys.platform == "linux" and "mapped.array_record" not in Path(f"/proc/{bench.pid}/maps").read_text():
            assert bench.poll() is None, bench.communicate()
            time.sleep(0.05)
        time.sleep(1)
        bench.send_signal(signal.SIGINT)
        out, err = bench.communicate(timeout=60)
    assert (bench.returncode, out, err) == (130, "", "")


@pytest.mark.processes
def test_a_ctrl_c_that_python_ignores_comes_again(mapped: str):
    code = """if True:
        import gc, signal, sys
        from arsrc import __main__

        def is_measuring(frame):
            return frame is not None and (frame.f_code.co_name == "_iterate" or is_measuring(frame.f_back))

        def interrupt(*_):
            if is_measuring(sys._getframe()):
                gc.callbacks.remove(interrupt)
                print("interrupted", flush=True)
                signal.raise_signal(signal.SIGINT)  # what a callback of gc raises is ignored

        gc.callbacks.append(interrupt)
        sys.exit(__main__.main())
    """
    with process("-c", code, "bench", mapped, "--batch-sizes", "4", "--seconds", "3600", platform="cpu") as bench:
        out, err = bench.communicate(timeout=60)
    assert (bench.returncode, out, err) == (130, "interrupted\n", "")


@pytest.mark.processes
@pytest.mark.parametrize("how", ["-m", "script"])
@pytest.mark.parametrize("imported", ["numpy", "jax._src.config", "arsrc.cli.tables"])
def test_ctrl_c_while_the_library_is_imported_ends_it_without_a_traceback(
    how: str, imported: str, mapped: str, tmp_path: Path
):
    script = tmp_path / "arsrc"
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["arsrc"].partition(":")
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    args = [*(("-m", "arsrc") if how == "-m" else (str(script),)), "bench", mapped, "--seconds", "3600"]
    with process("-X", "importtime", *args, platform="cpu") as bench:
        assert bench.stderr is not None
        while imported not in (line := bench.stderr.readline()).split():
            assert line, bench.communicate()
        bench.send_signal(signal.SIGINT)
        out, err = bench.communicate(timeout=60)
    assert bench.returncode in (130, -signal.SIGINT)  # which is 130 to a shell
    assert out == ""
    assert not [line for line in err.splitlines() if not line.startswith("import time:")]


def test_what_a_process_was_started_as_is_told_by_its_arguments():
    assert starting.is_command(["-m", "info", "x"], ["python", "-W", "error", "-m", "arsrc", "info", "x"])
    assert starting.is_command(["-m"], ["python", "-marsrc"])
    assert starting.is_command(["/usr/bin/arsrc", "-m"], ["python", "/usr/bin/arsrc", "-m"])
    assert not starting.is_command(["-m", "arsrc"], ["python", "-m", "pytest", "arsrc"])
    assert not starting.is_command(["train.py", "arsrc"], ["python", "train.py", "arsrc"])
    assert not starting.is_command([""], ["python"])
    assert not starting.is_command(["-m", "a", "b"], ["host"])  # a program that holds an interpreter
    assert not starting.is_command([], [])


# Tables.


def test_tables_are_plain_where_they_are_piped_and_rich_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    rows = [("a[b]", 1_000), ("\x1b[31mred\u009b", 2)]
    tables.write_table(("name", "count"), rows, "  ")
    assert capsys.readouterr().out.splitlines() == [
        "  name             count",
        "  a[b]              1000",
        r"  \x1b[31mred\x9b      2",
    ]
    tables.write_pairs([("one", "x"), ("three", "y")])
    assert capsys.readouterr().out == "one:    x\nthree:  y\n"
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tables.write_table(("name", "count"), rows)
    out = capsys.readouterr().out
    assert "\u2500" in out
    assert "a[b]" in out
    assert r"\x1b[31mred" in out
    monkeypatch.setattr(tables, "HAS_RICH", False)
    tables.write_table(("name", "count"), rows)
    assert "\u2500" not in capsys.readouterr().out


def test_what_an_encoding_does_not_have_is_escaped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii", raising=False)
    tables.write_line("Gr\u00fc\u00dfe \ud800")
    assert capsys.readouterr().out == "Gr\\xfc\\xdfe \\ud800\n"


# info.


def test_info_says_what_a_file_holds(path: str, run: Run, request: pytest.FixtureRequest):
    code, out, err = run("info", path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    options = OPTIONS[request.node.callspec.params["path"]]
    lengths = [len(record) for record in RECORDS]
    assert found["files"] == [{"path": path, "num_bytes": os.path.getsize(path), "num_records": NUM_RECORDS}]
    assert (found["num_records"], found["num_bytes"]) == (NUM_RECORDS, os.path.getsize(path))
    assert found["group_sizes"] == [7 if "group_size:7" in options else 1]
    (compression,) = found["compressions"]
    assert compression == {"uncompressed": "none", "transpose:true": "transposed brotli"}.get(
        options.split(",")[1], options.split(",")[1]
    )
    assert ArrayRecordReader(path).writer_options_string() == found["writer_options"]
    assert found["lengths"] == {
        "min": min(lengths), "max": max(lengths), "mean": float(np.mean(lengths)), "num_records": NUM_RECORDS,
        "are_all": True, "histogram": found["lengths"]["histogram"],
    }  # fmt: skip
    for one in found["lengths"]["histogram"]:
        assert one["num_records"] == sum(one["least"] <= length <= one["most"] for length in lengths)
    assert sum(one["num_records"] for one in found["lengths"]["histogram"]) == NUM_RECORDS
    assert found["first_record"] == {"record_id": 0, "num_bytes": 500, "kind": "bytes", "description": "bytes"}
    assert (found["unreadable"], found["codec"]) == (None, f"Ragged(max_length={max(lengths)})")
    assert re.fullmatch(r"The codec is guessed from \d+ of 60 records\.", *found["remarks"])


def test_the_code_that_info_prints_reads_the_file(path: str, run: Run):
    code, out, _ = run("info", path)
    assert code == 0
    names: dict[str, Any] = {}
    exec(out[out.index("import arsrc") :], names)
    batch = arsrc.peek(names["config"], arsrc.init(names["config"]))
    for row, record in enumerate(RECORDS):
        assert bytes(np.asarray(batch.data["values"][row][: len(record)])) == record
    arsrc.close(names["config"])


def test_info_counts_slices_and_files_of_several_kinds(tmp_path: Path, write_records: Any, run: Run):
    for name, options in OPTIONS.items():
        write_records(tmp_path / name, RECORDS, options)
    code, out, _ = run("info", f"{tmp_path}/mapped[10:30]", *(f"{tmp_path}/{name}" for name in OPTIONS), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["num_records"] == 20 + NUM_RECORDS * len(OPTIONS)
    assert found["files"][0]["num_records"] == 20
    assert found["group_sizes"] == [1, 7]
    assert found["compressions"] == ["none", "snappy", "transposed brotli", "zstd"]


def test_info_of_more_grouped_records_than_it_reads_says_so(tmp_path: Path, write_records: Any, run: Run):
    records = [bytes(1 + number % 3) for number in range(20_000)]
    path = write_records(tmp_path / "x", records, "group_size:1000,zstd")
    assert "lengths of 4,096 records from all over the files:" in run("info", path)[1]
    path = write_records(tmp_path / "y", records, "group_size:1000,uncompressed")
    assert "lengths of all records:" in run("info", path)[1]


def test_info_says_which_first_record_is_bad_and_goes_on(mapped: str, run: Run):
    damage(mapped, IN_HEADER)
    code, out, err = run("info", mapped)
    assert (code, err) == (0, "")
    assert "unreadable:" in out
    assert "record 0: array_record's reader fails" in out
    assert re.search(r"^record 1: +bytes, 513 bytes$", out, re.MULTILINE)


@pytest.mark.parametrize(
    "lengths",
    [[5], [0, 0], [1, 2, 3], list(range(100)), [0, *range(1, 90), 10_000], [1, 10**9, *range(5, 50)], [7] * 99],
)
def test_a_histogram_counts_each_length_once(lengths: list[int]):
    bins = histogram(np.array(lengths))
    assert len(bins) <= 10
    assert bins[0].least == min(lengths)
    assert bins[-1].most >= max(lengths)
    assert all(before.most + 1 <= one.least <= one.most for before, one in itertools.pairwise(bins))
    assert [one.num_records for one in bins] == [
        sum(one.least <= length <= one.most for length in lengths) for one in bins
    ]


# head.


def test_head_writes_the_bytes_of_records(path: str, capfdbinary: Any):
    assert main(["head", path, "--raw", "-n", "5"]) == 0
    assert capfdbinary.readouterr().out == b"".join(RECORDS[:5])
    assert main(["head", path, f"{path}[58:]", "--raw", "-n", "1000"]) == 0
    assert capfdbinary.readouterr().out == b"".join(RECORDS + RECORDS[58:])


def test_head_shows_records_as_a_person_reads_them(tmp_path: Path, write_records: Any, run: Run):
    records = [b'{"a": "\\u009b"}', b"text\nmore", bytes(range(48)), np.arange(1, 9, dtype="<i4").tobytes(), b""]
    code, out, err = run("head", write_records(tmp_path / "x", records), "-n", "9")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "record 0: JSON, 15 bytes",
        "  {",
        r'    "a": "\x9b"',
        "  }",
        "record 1: text, 9 bytes",
        "  text",
        "  more",
        "record 2: bytes, 48 bytes",
        "  000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................",
        "  000010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  ................",
        "  000020  20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./",
        "record 3: int32 tokens, as it seems, 32 bytes",
        "  [1, 2, 3, 4, 5, 6, 7, 8]",
        "record 4: bytes, 0 bytes",
    ]


def test_head_shows_the_features_of_examples(tmp_path: Path, write_records: Any, run: Run):
    record = (
        b"\x0a\x1c\x0a\x0c\x0a\x01a\x12\x07\x1a\x05\x0a\x03\x01\x02\x03\x0a\x0c\x0a\x02bc\x12\x06\x0a\x04\x0a\x02hi"
    )
    _, out, _ = run("head", write_records(tmp_path / "x", [record]))
    assert out.splitlines() == [
        "record 0: tf.train.Example of 2 features, 30 bytes",
        "  feature  kind   values  first",
        "  a        int64       3  [1, 2, 3]",
        "  bc       bytes       1  'hi'",
    ]


def test_head_goes_on_behind_a_record_that_is_bad(mapped: str, run: Run):
    damage(mapped, IN_HEADER)
    code, out, err = run("head", mapped)
    assert code == 1
    assert err.startswith("arsrc: error: read: array_record's reader fails")
    assert [line for line in out.splitlines() if line.startswith("record")] == [
        "record 1: bytes, 513 bytes",
        "record 2: bytes, 526 bytes",
    ]


def test_head_ends_where_a_file_cannot_be_read(mapped: str, run: Run, monkeypatch: pytest.MonkeyPatch):
    def open_and_cut(paths: Any) -> Any:
        data_set = data_set_of(paths)
        os.truncate(mapped, 65_536)
        return data_set

    monkeypatch.setattr(head, "data_set_of", open_and_cut)
    code, out, err = run("head", mapped)
    assert (code, out, err.count("arsrc: error: ")) == (1, "", 1)
    assert err.startswith("arsrc: error: read: a file was changed while it was open")


# verify.


def damage(path: str, *positions: int) -> None:
    data = bytearray(Path(path).read_bytes())
    for position in positions:
        data[position] ^= 0x55
    Path(path).write_bytes(data)


def what_the_reader_finds(path: str) -> set[int] | None:
    """The records that array_record's reader, asked for each alone, cannot read; None: it cannot open the file."""
    try:
        reader = ArrayRecordReader(path)
        if not reader.ok() or reader.num_records() != NUM_RECORDS:
            return None
    except (RuntimeError, ValueError):
        return None
    bad = set()
    for position in range(NUM_RECORDS):
        try:
            if reader.read([position]) != [RECORDS[position]]:
                bad.add(position)
        except (RuntimeError, ValueError, IndexError):
            bad.add(position)
    return bad


def ids_of(ranges: Sequence[Sequence[int]]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


def test_verify_finds_nothing_in_good_files(path: str, run: Run):
    assert run("verify", path) == (0, f"{NUM_RECORDS} records of 1 file: all are good\n", "")
    assert run("verify", f"{path}[3:9]", path) == (0, f"{NUM_RECORDS + 6} records of 1 file: all are good\n", "")
    assert json.loads(run("verify", path, "--json")[1]) == {
        "num_files": 1, "num_records": NUM_RECORDS, "bad_files": [], "bad_records": [], "exclude": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("head", "x", "-n=-1"), "argument -n: '-1' is no whole number from 0 on."),
        (("convert", "x", "y", "--num-shards", "two"), "argument --num-shards: 'two' is no whole number from 0 on."),
        (("bench", "x", "--batch-sizes", "8,0"), "argument --batch-sizes: '8,0' has a batch size of 0."),
        (("bench", "x", "--batch-sizes", "8,"), "argument --batch-sizes: '' is no whole number from 0 on."),
        (("bench", "x", "--seconds", "-1"), "argument --seconds: '-1' is no number of seconds above 0, up to 3600."),
        (("bench", "x", "--seconds", "a"), "argument --seconds: 'a' is no number of seconds above 0, up to 3600."),
    ],
)
def test_an_argument_that_is_no_number_is_said_in_words(run: Run, args: tuple[str, ...], text: str):
    assert run(*args) == (2, "", f"arsrc: error: {text} See arsrc {args[0]} --help.\n")


def test_verify_speaks_of_files_that_can_be_read_only_beside_those_that_cannot(
    tmp_path: Path, write_records: Any, run: Run
):
    path = write_records(tmp_path / "x", [bytes([number]) * 200 for number in range(50)], "group_size:1,uncompressed")
    damage(path, Path(path).read_bytes().index(bytes([13]) * 200) + 5)
    code, out, _ = run("verify", path)
    assert code == 1
    assert out.startswith("50 records of 1 file: 1 is bad\n")


def test_verify_counts_no_records_where_no_file_can_be_read(tmp_path: Path, run: Run):
    (tmp_path / "x").write_bytes(b"PAR1" + bytes(70_000))
    code, out, _ = run("verify", str(tmp_path / "x"))
    assert code == 1
    assert "1 file cannot be read:\n" in out
    assert " 0 " not in out


def test_an_empty_file_is_good(tmp_path: Path, write_records: Any, run: Run):
    assert run("verify", write_records(tmp_path / "x", [])) == (0, "0 records of 1 file: all are good\n", "")


def test_verify_finds_all_that_array_records_reader_finds(path: str, run: Run):
    whole = Path(path).read_bytes()
    used = len(whole.rstrip(b"\0")) - 65_536  # of the blocks in front of the last, without what fills them up
    rng = np.random.default_rng(0)
    num_bad = 0
    places = [[int(rng.integers(0, used))] for _ in range(25)] + [rng.integers(0, used, 3).tolist() for _ in range(8)]
    places += [[len(whole) - 65_536 + place] for place in (0, 1, 3, 8)]
    for positions in places:
        Path(path).write_bytes(whole)
        damage(path, *positions)
        code, out, _ = run("verify", path, "--json")
        found, expected = json.loads(out), what_the_reader_finds(path)
        bad = ids_of(found["exclude"])
        if expected is None:
            assert found["bad_files"], positions
        elif not found["bad_files"]:
            assert bad == expected, positions
        assert code == (1 if bad or found["bad_files"] else 0)
        assert bad == ids_of([one["positions"] for one in found["bad_records"]])
        num_bad += bool(bad)
    assert num_bad > 5


def test_what_verify_prints_as_exclude_reads_around_what_is_bad(tmp_path: Path, write_records: Any, run: Run):
    paths = [write_records(tmp_path / f"{name}.array_record", RECORDS, OPTIONS["groups"]) for name in "abcd"]
    Path(paths[1]).write_bytes(b"PAR1" + bytes(70_000))
    damage(paths[2], IN_HEADER)
    damage(paths[3], 900)
    code, out, err = run("verify", *paths)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "1 file cannot be read:"
    assert re.fullmatch(rf"{paths[1]} +is no ArrayRecord file, but a Parquet file", lines[2])
    assert re.search(rf"^{paths[2]} +\(0, 7\) +\(60, 67\) +array_record's reader fails", out, re.MULTILINE)
    exclude = eval(re.search(r"^exclude=(.*)$", out, re.MULTILINE)[1])  # type: ignore[index]
    assert (60, 67) in exclude
    assert "Leave the files that cannot be read out of paths" in lines[-1]
    good = [paths[0], *paths[2:]]
    codec = arsrc.codecs.Ragged(max_length=2000)
    config = arsrc.ArrayRecordSourceConfig(
        good, 10, codec, exclude=exclude, num_epochs=1, read=arsrc.ReadOptions(checksum="always")
    )
    num_read = sum(int(batch.mask.sum()) for _, batch in arsrc.iterate(config))
    assert num_read == 3 * NUM_RECORDS - sum(stop - start for start, stop in exclude)
    arsrc.close(config)
    found = json.loads(run("verify", *paths, "--json")[1])
    assert found["bad_files"] == [{"path": paths[1], "what": "is no ArrayRecord file, but a Parquet file"}]
    assert found["bad_records"][0]["positions"] == [0, 7]
    assert found["bad_records"][0]["record_ids"] == [60, 67]
    assert found["exclude"] == [list(one) for one in exclude]
    assert (found["num_files"], found["num_records"]) == (4, 3 * NUM_RECORDS)


def test_a_single_bad_record_is_a_number_in_exclude(mapped: str, run: Run):
    damage(mapped, 200)
    assert run("verify", mapped)[1].splitlines()[-1] == "exclude=[0]"


def test_verify_goes_on_where_a_file_is_gone_or_a_slice_too_long(mapped: str, run: Run, tmp_path: Path):
    code, out, _ = run("verify", f"{mapped}[50:70]", f"{mapped}[5:7]", "--json")
    found = json.loads(out)
    assert code == 1
    assert [one["what"] for one in found["bad_files"]] == [
        "a slice lies beyond the end of its file, which has 60 records"
    ]
    assert found["num_records"] == 2


def test_a_file_that_goes_bad_during_the_run_is_not_counted(tmp_path: Path, write_records: Any):
    names = [write_records(tmp_path / f"{name}.array_record", RECORDS, OPTIONS["mapped"]) for name in "abc"]
    damage(names[1], 200)
    damage(names[2], 200)
    verification = Verification(paths.expand(paths.normalize([names[0], f"{names[1]}[:7]", names[1], names[2]])))
    Path(names[1]).write_bytes(Path(names[0]).read_bytes()[:-1])
    found = verification.read(lambda _: None)
    assert [one.path for one in found.bad_files] == [names[1]]
    assert [piece.path for piece in found.slices] == [names[0], names[2]]
    assert [(one.path, one.start, one.first_id) for one in found.bad_records] == [(names[2], 0, NUM_RECORDS)]
    assert exclude_text(found.bad_records) == f"exclude=[{NUM_RECORDS}]"


def test_large_records_are_read_some_at_a_time(tmp_path: Path, write_records: Any, run: Run):
    records = [bytes([number]) * 3_000_000 for number in range(8)]
    path = write_records(tmp_path / "x", records, OPTIONS["mapped"])
    damage(path, 65_536 * 100, 65_536 * 200)
    code, out, _ = run("verify", path, "--json")
    assert code == 1
    assert json.loads(out)["exclude"] == [[2, 3], [4, 5]]


# bench.


def test_bench_measures_each_size_both_ways(mapped: str, run: Run):
    code, out, err = run("bench", mapped, "--batch-sizes", "4,16,1024", "--seconds", "0.05", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [(one["batch_size"], one["way"]) for one in found["results"]] == [
        (4, "iterate"), (4, "scan"), (16, "iterate"), (16, "scan"),
    ]  # fmt: skip
    assert found["left_out"] == [1024]
    mean = np.mean([len(record) for record in RECORDS])
    for one in found["results"]:
        assert one["records_per_second"] == one["batch_size"] * one["batches_per_second"] > 0
        assert one["bytes_per_second"] == pytest.approx(one["records_per_second"] * mean)
    assert (found["num_records"], found["num_records_in_all"]) == (NUM_RECORDS, NUM_RECORDS)
    assert "60 records in 1 file" in found["explain"]


@pytest.mark.parametrize("options", [OPTIONS["mapped"], OPTIONS["transposed"]])
def test_bench_of_few_records_takes_them_all_as_a_batch(options: str, tmp_path: Path, write_records: Any, run: Run):
    path = write_records(tmp_path / "x", RECORDS, options)
    code, out, _ = run("bench", path, "--batch-sizes", "1024", "--seconds", "0.05")
    assert code == 0
    about = (
        "60 records of 884 bytes, warm, shuffled, without a step\ntheir bytes alone: what is in them is not decoded\n"
    )
    assert out.startswith(f"{about}\nbatch size  way      batches/s")
    assert re.search(r"^ +60  scan +[\d,]+", out, re.MULTILINE)
    assert "\nleft out, as larger than the 60 records that are read: 1,024\n" in out


def test_bench_reads_the_first_part_of_large_data_alone(
    mapped: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_records: Any
):
    others = [write_records(tmp_path / f"{number}", RECORDS) for number in range(3)]
    monkeypatch.setattr(COMMANDS["bench"], "_MOST_BYTES", 1.5 * os.path.getsize(mapped))
    args = "--batch-sizes", "4", "--seconds", "0.01", "--json"
    found = json.loads(run("bench", mapped, f"{mapped}[10:40]", *others, *args)[1])
    assert (found["num_records"], found["num_records_in_all"]) == (NUM_RECORDS + 30, 4 * NUM_RECORDS + 30)
    assert "90 records in 1 file" in found["explain"]


def test_bench_of_a_damaged_file_is_an_error(mapped: str, run: Run):
    damage(mapped, IN_HEADER)
    code, _, err = run("bench", mapped, "--batch-sizes", "16", "--seconds", "0.05")
    assert code == 1
    assert err.startswith("arsrc: error: read: ")
