"""`arsrc bench`: how fast this machine reads files, in random order and from a warm page cache, without a step.

What is read are the bytes of records: whatever they hold, nothing decodes it.

With `--json` one object is printed, of these keys: `num_records` that were read, of `num_records_in_all`;
`record_bytes`, their mean length; `device`; `results`, a list of `{batch_size, way, batches_per_second,
records_per_second, bytes_per_second}`, where `way` is "iterate" or "scan"; `left_out`, the batch sizes of more records
than there are; `explain`, a text.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import arsrc
from arsrc.amounts import counted
from arsrc.cli.arguments import add_json, add_paths, refused, whole_number
from arsrc.cli.file_facts import Lengths, lengths_of
from arsrc.cli.tables import write_json, write_line, write_table
from arsrc.codecs import Bytes, Ragged
from arsrc.open_paths import data_set_of

SUMMARY = "measure how fast this machine reads files"

_MOST_BATCH_BYTES = 2**28  # longer records are cut where a batch would take more
_MOST_FETCH_BYTES = 2**24
_MOST_FETCHED = 16  # batches
_MOST_BYTES = 2**29  # of files that are read: they shall be warm
_SHARE = 0.25  # of the time that is measured, for one compiled loop
_START = 0.25  # of the time that is measured, in front of it


class _Rate(NamedTuple):
    """What was measured of batches of one size, read in one way."""

    batch_size: int
    way: str
    batches_per_second: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_paths(parser)
    about = "batch sizes, by default 64,256,1024"
    parser.add_argument("--batch-sizes", type=_sizes, default=(64, 256, 1024), metavar="N,N,...", help=about)
    about = "how long each measurement takes, by default 2"
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help=about)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print what was measured; return 0."""
    data = _data(options.paths)
    sizes = [size for size in options.batch_sizes if size <= data.num_records] or [data.num_records]
    rates, explained = list[_Rate](), ""
    for size in sizes:
        config = arsrc.ArrayRecordSourceConfig(data.paths, size, _codec(data.lengths, size), shuffle_records=True)
        if size == sizes[0]:
            _warm(config)
        rates.append(_Rate(size, "iterate", _iterate(config, options.seconds)))
        explained = arsrc.explain(config)
        rates.append(_Rate(size, "scan", _scan(config, options.seconds, rates[-1].batches_per_second)))
        arsrc.close(config)
    left_out = [size for size in options.batch_sizes if size > data.num_records]
    if options.json:
        write_json(_as_json(rates, data, left_out, explained))
    else:
        _write(rates, data, left_out, explained)
    return 0


class _Data(NamedTuple):
    """What is read.

    Attributes:
        paths: The first files, or the first records of one, of a bounded number of bytes.
        num_records: Records of these.
        lengths: Of the records of all files.
    """

    paths: Sequence[str]
    num_records: int
    lengths: Lengths


def _data(paths: Sequence[str]) -> _Data:
    data_set = data_set_of(paths)
    lengths = lengths_of(data_set)
    some, num_records, num_bytes = list[str](), 0, 0.0
    for piece in data_set.slices:
        file = data_set.files.opened.files.get(piece.path)  # None: of many slices, not opened yet
        each = data_set.files.stamps[piece.path].num_bytes / max(file.num_records if file else piece.num_records, 1)
        count = min(piece.num_records, max(1, int((_MOST_BYTES - num_bytes) / each)))
        some.append(str(dataclasses.replace(piece, stop=piece.start + count)))
        num_records, num_bytes = num_records + count, num_bytes + count * each
        if num_bytes >= _MOST_BYTES:
            break
    return _Data(some, num_records, lengths)


def _warm(config: arsrc.ArrayRecordSourceConfig) -> None:
    """Read all once, as it lies in the files."""
    once = dataclasses.replace(config, num_epochs=1, shuffle_records=False, remainder="pad")
    for _ in arsrc.iterate(once):
        pass
    arsrc.close(once)


def _iterate(config: arsrc.ArrayRecordSourceConfig, seconds: float) -> float:
    """Return how many batches a second a loop in Python gets."""
    begun = perf_counter()
    start, num_batches = 0.0, 0
    for _, batch in arsrc.iterate(config, arsrc.init(config)):
        jax.block_until_ready(batch)
        now = perf_counter()
        if not start:
            if now - begun >= seconds * _START:
                start = now
            continue
        num_batches += 1
        if now - start >= seconds:
            break
    return num_batches / (now - start)


def _scan(config: arsrc.ArrayRecordSourceConfig, seconds: float, rate: float) -> float:
    """Return how many batches a second compiled loops get, where `rate` is what loops in Python do."""
    num_steps = max(1, int(rate * seconds * _SHARE))
    spec = arsrc.batch_spec(config).data
    batch_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(spec))
    fetched = max(1, min(_MOST_FETCHED, num_steps, _MOST_FETCH_BYTES // max(batch_bytes, 1)))

    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, None]:
        return carry + jax.tree.leaves(batch.data)[0].ravel()[:1].sum().astype(jnp.int32), None

    @jax.jit
    def loop(state: arsrc.SourceState) -> tuple[arsrc.SourceState, Any]:
        state, carry, _ = arsrc.scan_steps(config, state, jnp.int32(0), body, num_steps, batches_per_fetch=fetched)
        return state, carry

    state, _ = jax.block_until_ready(loop(arsrc.init(config)))
    start, num_batches = perf_counter(), 0
    while (now := perf_counter()) - start < seconds:
        state, _ = jax.block_until_ready(loop(state))
        num_batches += num_steps
    return num_batches / (now - start)


def _codec(lengths: Lengths, batch_size: int) -> Bytes | Ragged:
    if lengths.are_all and lengths.are_equal:
        return Bytes()
    longest = max(1, int(lengths.lengths.max(initial=1)))
    return Ragged(max_length=min(longest, max(1, _MOST_BATCH_BYTES // batch_size)), overflow="truncate")


def _write(rates: Sequence[_Rate], data: _Data, left_out: Sequence[int], explained: str) -> None:
    mean = _mean(data.lengths)
    some = "" if data.num_records == data.lengths.num_records else "the first "
    write_line(f"{some}{counted(data.num_records, 'record')} of {mean:,.0f} bytes, warm, shuffled, without a step")
    write_line("their bytes alone: what is in them is not decoded")
    write_line()
    rows = [
        (
            f"{rate.batch_size:,}",
            rate.way,
            f"{rate.batches_per_second:,.0f}",
            f"{rate.batches_per_second * rate.batch_size:,.0f}",
            f"{rate.batches_per_second * rate.batch_size * mean / 1e6:,.1f}",
        )
        for rate in rates
    ]
    write_table(("batch size", "way", "batches/s", "records/s", "MB/s"), rows)
    if left_out:
        sizes = ", ".join(f"{size:,}" for size in left_out)
        write_line(f"left out, as larger than the {counted(data.num_records, 'record')} that are read: {sizes}")
    write_line()
    for line in explained.splitlines():
        write_line(line)


def _as_json(rates: Sequence[_Rate], data: _Data, left_out: Sequence[int], explained: str) -> dict[str, Any]:
    mean = _mean(data.lengths)
    return {
        "num_records": data.num_records,
        "num_records_in_all": data.lengths.num_records,
        "record_bytes": mean,
        "device": jax.devices()[0].device_kind,
        "results": [
            {
                **rate._asdict(),
                "records_per_second": rate.batches_per_second * rate.batch_size,
                "bytes_per_second": rate.batches_per_second * rate.batch_size * mean,
            }
            for rate in rates
        ],
        "left_out": list(left_out),
        "explain": explained,
    }


def _mean(lengths: Lengths) -> float:
    return float(lengths.lengths.mean()) if len(lengths.lengths) else 0.0


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(map(whole_number, text.split(",")))
    if not all(sizes):
        raise refused(f"{text!r} has a batch size of 0")
    return sizes


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= 3600:
            return number
    raise refused(f"{text!r} is no number of seconds above 0, up to 3600")
