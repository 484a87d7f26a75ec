"""The benchmarks run, and measure every figure that arsrc is to reach; what they measure is not judged here."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# Every figure, by the name of its case; a part of the line that says what it is.
FIGURES = {
    "grain-60k": ("at least 150", "Grain's fastest"),
    "read-60k": ("at least 6", "official read of 256"),
    "core-read": ("at least 0.9", "official read of 256"),
    "core-grain": ("at least 10", "Grain's MapDataset"),
    "grain-1m": ("at least 500", "Grain's fastest"),
    "read-1m": ("at least 25", "official read of 256"),
    "shards": ("at least 0.8", "64 files"),
    "callback": ("at least 0.7", "bare callback"),
    "callback-told": ("at least 0.7", "told which records"),
    "by-hand": ("at least 1", "from a NumPy array"),
    "body-nested": ("at least 0.95", "16 batches at once"),
    "body": ("at least 0.95", "gather on the device"),
    "gather": ("at least 0.8", "memcpy"),
    "zstd": ("at least 1.3", "official read of 4096"),
    "zstd-cpu": ("at most 0.65", "CPU seconds a record"),
    "zstd-bare": ("at least 0.8", "zstd alone on as many threads"),
    "noise": ("at least 5", "official read of 4096"),
    "noise-mapped": ("at least 0.6", "same records uncompressed"),
    "noise-12k": ("at least 0.8", "12 KB"),
    "noise-110k": ("at least 0.8", "110 KB"),
    "blocks": ("at least 20", "official random read of 256"),
    "wait": ("at most 1.25", "max(c, r)"),
    "wait-mapped": ("at most 1.1", "uncompressed"),
    "cache-zstd": ("at least 0.8", "second epoch"),
    "cache-decoded": ("at least 0.8", "decoded record by record"),
    "cold": ("at least 1.5", "cold page cache"),
    "open": ("at most 3", "open 1M records"),
    "open-zstd": ("at most 3", "zstd"),
    "example-loop": ("at least 3", "bare loop of protobuf"),
    "example-grain": ("at least 50", "Grain"),
    "example-read": ("at least 2", "official read of 4096 and that loop"),
    "example-z-grain": ("at least 20", "Grain"),
    "example-jpeg": ("at least 1.5", "Grain"),
    "jpeg": ("at least 1.7", "bare loop on one core"),
    "python": ("at least 1", "Grain"),
}

# Of these the contestants need packages that the tests do not install.
PEERS = ("Grain", "PyTorch", "cyreal", "datarax")
PEER_CASES = {"grain-60k", "core-grain", "grain-1m", "example-grain", "example-z-grain", "example-jpeg", "python"}


def run(script: str, *args: str, **environment: str) -> str:
    """Run a benchmark as users do where there is no accelerator, and return what it prints."""
    command = [sys.executable, str(BENCHMARKS / script), *args]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.processes
def test_every_figure_has_a_case_with_its_target() -> None:
    lines = {line.split()[0]: line for line in run("throughput.py", "--list").splitlines()}
    assert set(FIGURES) <= set(lines)
    for name, (target, what) in FIGURES.items():
        assert f" {target} " in lines[name]
        assert what in lines[name]


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_where_the_python_that_it_found_is_too_old_for_the_newest_peers(tmp_path: Path) -> None:
    version = "{}.{}".format(*sys.version_info)
    commands, ready = tmp_path / "commands", tmp_path / "environment"
    for folder in (commands, ready):
        folder.mkdir()
    for command in ("make", "sh", "touch"):
        (commands / command).symlink_to(str(shutil.which(command)))
    for python in ("python3", "python3.12"):  # as what it is, not as it is called
        (commands / python).symlink_to(sys.executable)
    (commands / "python3.13").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's, where it was not told to use it
    (commands / "python3.13").chmod(0o755)
    for stamp in (f".python-{version}", ".has-bench"):  # so that nothing is installed
        (ready / stamp).touch()
    done = subprocess.run(
        ["make", "bench", "BENCHMARKS=", f"VENV_BENCH={ready}"],
        cwd=BENCHMARKS.parent,
        env={"PATH": str(commands), "PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    says_so = f"Python {version}: the newest peers run on 3.12 and 3.13." in done.stdout
    assert says_so == (sys.version_info[:2] not in ((3, 12), (3, 13)))


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="drops pages from the page cache")
def test_a_quick_run_measures_all_that_needs_no_other_packages(tmp_path: Path) -> None:
    printed = run("throughput.py", "--quick", "--results", str(tmp_path), "--data", str(tmp_path / "data"))
    assert "figures mean nothing" in printed
    assert (tmp_path / "throughput.png").stat().st_size > 10_000
    report = (tmp_path / "throughput.md").read_text()
    assert str(tmp_path) not in report
    assert os.uname().nodename not in report.split()
    found = json.loads((tmp_path / "throughput.json").read_text())
    for figure in ("records_per_second", "cpu_seconds_per_record"):
        for race, contestants in found[figure].items():
            for name, rounds in contestants.items():
                if name.startswith(PEERS) and isinstance(rounds, str):
                    assert rounds.startswith("not installed"), (race, name, rounds)
                else:
                    assert isinstance(rounds, list), (race, name, rounds)
                    assert all(value > 0 for value in rounds), (race, name, rounds)
    measured = {case["case"] for case in found["cases"] if case["ratio"] is not None}
    assert measured >= set(FIGURES) - PEER_CASES


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_the_studies_of_scale_run(tmp_path: Path) -> None:
    printed = run("scale.py", "--quick", "--results", str(tmp_path))
    assert "4,294,967,295" in printed
    assert re.search(r"^\| 10,000 \|( [\d.]+ \w+ \| [\d.]+ \|){2} -?[\d.]+ \|$", printed, re.MULTILINE)  # of memory
    assert {path.name for path in tmp_path.iterdir()} == {"scale.md", "scale.png"}


@pytest.mark.slow
@pytest.mark.processes
def test_the_studies_of_faults_run(tmp_path: Path) -> None:
    run("faults.py", "--quick", "--results", str(tmp_path))
    (report,) = tmp_path.iterdir()
    rows = [line for line in report.read_text().splitlines() if re.match(r"\| \d", line)]
    assert report.name == "faults.md"
    assert [len(re.findall(r"\d\.\d\d \(", row)) for row in rows] == [4, 4, 4, 4, 6]  # ratios, with the time


@pytest.mark.slow
@pytest.mark.processes
def test_the_studies_of_tools_run(tmp_path: Path) -> None:
    run("tools.py", "--quick", "--results", str(tmp_path))
    (report,) = tmp_path.iterdir()
    assert len(re.findall(r"\| [\d.e-]+ \([\d.e-]+\) \| \d+\.\d\d \|$", report.read_text(), re.MULTILINE)) == 9


@pytest.mark.slow
@pytest.mark.processes
def test_a_quick_run_of_packing_measures_all_that_needs_no_other_packages(tmp_path: Path) -> None:
    run("packing.py", "--quick", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "data"))
    found = json.loads((tmp_path / "results" / "packing.json").read_text())
    for contestants in found["tokens_per_second"].values():
        for name, rounds in contestants.items():
            is_measured = isinstance(rounds, list) and all(value > 0 for value in rounds)
            assert is_measured or (name.startswith("Grain") and str(rounds).startswith("not installed")), name


@pytest.mark.slow
@pytest.mark.processes
def test_a_quick_run_of_segments_measures_everything(tmp_path: Path) -> None:
    run("segments.py", "--quick", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "data"))
    found = json.loads((tmp_path / "results" / "segments.json").read_text())
    rates = [rate for contestants in found["records_per_second"].values() for rate in contestants.values()]
    assert len(rates) == 11
    assert all(value > 0 for rounds in rates for value in rounds)
    report = (tmp_path / "results" / "segments.md").read_text()
    assert "not measured" not in report


@pytest.mark.processes
def test_without_an_accelerator_its_benchmark_says_so() -> None:
    assert "there is none" in run("accelerator.py")


WAYS = [
    "step alone",
    "device gather",
    "arsrc, resident",
    *[f"arsrc, scan, {count} per fetch" for count in (1, 16, 64)],
    "arsrc, iterate",
    *[f"arsrc, {kind} of {count}" for kind in ("segments", "pinned segments") for count in (16, 64)],
]


@pytest.mark.slow
@pytest.mark.processes
def test_the_study_of_an_accelerator_runs_without_one_in_small(tmp_path: Path) -> None:
    results = tmp_path / "results"
    printed = run("accelerator.py", "--anyway", "--results", str(results), "--data", str(tmp_path / "data"))
    assert {path.name for path in results.iterdir()} == {f"accelerator.{kind}" for kind in ("md", "json", "png")}
    assert (results / "accelerator.png").stat().st_size > 10_000
    report = (results / "accelerator.md").read_text()
    assert str(tmp_path) not in report
    for text in (printed, report):
        times, shares = [line for line in text.splitlines() if line.startswith("| 1.0 |")]
        assert len(re.findall(r"[\d.]+ m?s ", times)) == len(WAYS)
        assert len(re.findall(r"-?[\d.]+ % ", shares)) == len(WAYS) - 1
    found = json.loads((results / "accelerator.json").read_text())
    (rates,), (shares,) = found["records_per_second"].values(), found["derived_idle_share"].values()
    assert list(rates) == WAYS
    assert all(rates[way][0] > 0 for way in WAYS)
    assert shares == {way: pytest.approx([1 - rates[way][0] / rates["step alone"][0]]) for way in WAYS[1:]}
    ratios = {case["case"].partition(": ")[2]: case["ratio"] for case in found["cases"]}
    gather = rates["device gather"][0]
    assert ratios == {way.removeprefix("arsrc, "): pytest.approx(gather / rates[way][0]) for way in WAYS[-4:]}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--seconds", "0"], "the time for all cases was over"),
        (["--without", "step", "device", "arsrc"], "the command line says so"),
    ],
)
def test_the_study_of_an_accelerator_says_what_it_left_out(tmp_path: Path, options: list[str], reason: str) -> None:
    run("accelerator.py", "--anyway", "--results", str(tmp_path), "--data", str(tmp_path), *options)
    found = json.loads((tmp_path / "accelerator.json").read_text())
    (rates,) = found["records_per_second"].values()
    assert rates == dict.fromkeys(WAYS, f"left out: {reason}")
    assert all(case["ratio"] is None for case in found["cases"])


@pytest.mark.slow
@pytest.mark.processes
def test_everything_at_once_runs_for_some_seconds_and_says_what_it_took(tmp_path: Path) -> None:
    run("soak.py", "--seconds", "6", "--seed", "1", "--results", str(tmp_path))
    text = (tmp_path / "soak.md").read_text()
    assert "Errors: 0." in text
    assert all(f"| {name}" in text for name in ("own memory", "threads", "descriptors", "maps"))
