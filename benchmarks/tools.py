"""What does converting files take, against a loop of one's own; and beginning with a folder of many shards?

    python benchmarks/tools.py            # some 2 minutes on 2 idle cores
    python benchmarks/tools.py --quick    # does it run at all?

TFRecord files of `tf.train.Example` records are converted by `arsrc convert`, which verifies all checksums and syncs
what it has written, and by a loop that reads lengths and records, verifies nothing, and writes by array_record's
writer, with and without syncing; each to a file that is not there, since one that is overwritten lends its memory.
A folder of 1,000 shards, as TFDS lays it out, is opened and gives its first batch.
Writes `results/tools.md` beside this file; a quick run writes only where `--results` says.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import _machine

_RESULTS = pathlib.Path(__file__).parent / "results"
_WRITER_OPTIONS = "group_size:1,uncompressed"


def main() -> int:
    """Run both studies and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few records and shards: a smoke test")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    options = parser.parse_args()
    _machine.use_cores(2)
    machine = _machine.describe(_machine.OURS)
    tables = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for study in (_converting(834, 100_000), _converting(12_000, 20_000), _beginning):
            tables.append(study(folder, options.quick))
            print(f"{tables[-1]}\n", flush=True)
    results = options.results or (None if options.quick else _RESULTS)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        how = "Times are medians of turns that all contestants took one after the other; in brackets the least."
        parts = ["# Tools", how, *tables, "## Machine", _machine.table(machine)]
        (results / "tools.md").write_text("\n\n".join(parts) + "\n")
    return 0


def _in_turns(
    ways: dict[str, Callable[[], None]], rounds: int, before: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Return the seconds that each way takes, in turns, after one that is not timed; `before` each, something else."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            before()
            begin = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _table(title: str, seconds: dict[str, list[float]]) -> str:
    """Return the times as a table; ratios are to the first."""
    first = sorted(next(iter(seconds.values())))
    lines = [f"## {title}", "", "| | seconds | speed |", "|---|---|---|"]
    for name, some in seconds.items():
        middle = sorted(some)[len(some) // 2]
        lines.append(f"| {name} | {middle:.3g} ({min(some):.3g}) | {first[len(first) // 2] / middle:.2f} |")
    return "\n".join(lines)


def _converting(record_bytes: int, count: int) -> Callable[[pathlib.Path, bool], str]:
    """Return a study of `arsrc convert` against loops, over records of one size."""

    def study(folder: pathlib.Path, quick: bool) -> str:
        from array_record.python.array_record_module import ArrayRecordWriter

        from arsrc.cli import main as arsrc

        source, out = folder / "examples.tfrecord", folder / "out.array_record"
        num_records = 1_000 if quick else count
        _write_tfrecord(source, record_bytes, num_records)

        def convert() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                assert arsrc(["convert", str(source), str(out)]) == 0

        def loop(syncs: bool) -> None:
            writer = ArrayRecordWriter(str(out), _WRITER_OPTIONS)
            with open(source, "rb") as file:
                for record in _records(file):
                    writer.write(record)
            writer.close()
            if syncs:
                with open(out, "rb") as file:
                    os.fsync(file.fileno())

        ways = {
            "a loop that reads lengths and records, and array_record's writer": lambda: loop(False),
            "the same, and syncing": lambda: loop(True),
            "`arsrc convert`, which verifies all checksums and syncs": convert,
        }
        seconds = _in_turns(ways, 2 if quick else 9, before=lambda: out.unlink(missing_ok=True))
        return _table(f"Converting {num_records:,} TFRecord records of {record_bytes:,} B", seconds)

    return study


def _write_tfrecord(path: pathlib.Path, record_bytes: int, count: int) -> None:
    """Write `tf.train.Example` records of a picture, which is noise, and a label."""
    import google_crc32c
    import numpy as np
    from _forms import FORMS

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    rng, encode = np.random.default_rng(0), FORMS["example"].encode
    around = len(encode(np.zeros(record_bytes, np.uint8))) - record_bytes
    with open(path, "wb") as file:
        for _ in range(count):
            record = encode(rng.integers(0, 256, record_bytes - around, np.uint8))
            head = struct.pack("<Q", len(record))
            file.write(head + masked(head) + record + masked(record))


def _records(file: io.BufferedIOBase) -> Iterator[bytes]:
    while head := file.read(12):
        record = file.read(struct.unpack_from("<Q", head)[0])
        file.read(4)
        yield record


def _beginning(folder: pathlib.Path, quick: bool) -> str:
    """The first batch of `tfds.source` against array_record's open."""
    import jax
    from array_record.python.array_record_module import ArrayRecordReader

    import arsrc
    from arsrc import tfds

    num_shards = 20 if quick else 1_000
    paths = _write_folder(folder / "numbers" / "1.0.0", num_shards)

    def begin() -> None:
        config = tfds.source(folder / "numbers", "train", batch_size=64, shuffle_records=True)
        jax.block_until_ready(arsrc.next_batch(config, arsrc.init(config)))
        arsrc.close(config)

    def open_some(some: Sequence[str]) -> None:
        for path in some:
            ArrayRecordReader(path).close()

    ways = {
        "array_record's open of one shard": lambda: open_some(paths[:1]),
        "array_record's open of all, one after the other": lambda: open_some(paths),
        "`tfds.source`, `init` and the first batch, shuffled": begin,
    }
    return _table(f"Beginning with {num_shards:,} shards of 128 records", _in_turns(ways, 2 if quick else 7))


def _write_folder(folder: pathlib.Path, num_shards: int) -> list[str]:
    import numpy as np

    import arsrc
    from arsrc.codecs import TFExample

    folder.mkdir(parents=True)
    records = TFExample({"number": "int64"}).encode({"number": np.arange(128)})
    whole = [records[row] for row in range(len(records))]
    paths = []
    for shard in range(num_shards):
        paths.append(str(folder / f"numbers-train.array_record-{shard:05d}-of-{num_shards:05d}"))
        arsrc.write_array_record(paths[-1], whole, options="group_size:1,zstd")
    python = "tensorflow_datasets.core.features"
    number = {
        "pythonClassName": f"{python}.scalar.Scalar",
        "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
    }
    features = {
        "pythonClassName": f"{python}.features_dict.FeaturesDict",
        "featuresDict": {"features": {"number": number}},
    }
    split = {"name": "train", "shardLengths": ["128"] * num_shards, "numBytes": "0"}
    info = {"name": "numbers", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return paths


if __name__ == "__main__":
    sys.exit(main())
