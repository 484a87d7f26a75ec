"""`arsrc bench`: how fast this machine reads files, in random order and from a warm page cache, without a step.

With `--json` one object is printed, of these keys: `num_records`; `record_bytes`, the mean length; `device`; `results`, a
list of `{batch_size, way, batches_per_second, records_per_second, bytes_per_second}`, where `way` is "iterate" or "scan";
`explain`, a text.
"""

import argparse
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import arsrc
from arsrc.amounts import counted
from arsrc.cli.arguments import add_json, add_paths, whole_number
from arsrc.cli.file_facts import Lengths, lengths_of
from arsrc.cli.tables import write_json, write_line, write_table
from arsrc.codecs import Bytes, Ragged
from arsrc.read_records import opened

SUMMARY = "measure how fast this machine reads files"

_MOST_BATCH_BYTES = 2**28  # longer records are cut where a batch would take more
_MOST_FETCH_BYTES = 2**24
_MOST_FETCHED = 16  # batches
_SHARE = 0.25  # of the time that is measured, for one compiled loop


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
    about = "how long each measurement takes, by default 2; as long again, files are warmed"
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help=about)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print what was measured; return 0."""
    lengths = lengths_of(opened(options.paths))
    sizes = [size for size in options.batch_sizes if size <= lengths.num_records] or [lengths.num_records]
    rates, explained = list[_Rate](), ""
    for size in sizes:
        config = arsrc.ArrayRecordSourceConfig(options.paths, size, _codec(lengths, size), shuffle_records=True)
        num_warm = _iterate(config, options.seconds, None).num_batches
        by_iterate = _iterate(config, options.seconds, num_warm)
        explained = arsrc.explain(config)
        by_scan = _scan(config, options.seconds, num_warm, by_iterate.rate)
        rates += [_Rate(size, "iterate", by_iterate.rate), _Rate(size, "scan", by_scan.rate)]
        arsrc.close(config)
    if options.json:
        write_json(_as_json(rates, lengths, explained))
    else:
        _write(rates, lengths, explained)
    return 0


class _Timed(NamedTuple):
    """So many batches came within so many seconds."""

    num_batches: int
    seconds: float

    @property
    def rate(self) -> float:
        """Batches a second."""
        return self.num_batches / self.seconds


def _iterate(config: arsrc.ArrayRecordSourceConfig, seconds: float, most: int | None) -> _Timed:
    """Loop in Python for so long, over so many batches at most."""
    start, num_batches, batch = perf_counter(), 0, None
    for _, batch in arsrc.iterate(config, arsrc.init(config)):
        num_batches += 1
        if perf_counter() - start >= seconds or num_batches == most:
            break
    jax.block_until_ready(batch)
    return _Timed(num_batches, perf_counter() - start)


def _scan(config: arsrc.ArrayRecordSourceConfig, seconds: float, num_warm: int, rate: float) -> _Timed:
    """Run a compiled loop again and again for so long, over batches that are warm."""
    num_steps = max(1, min(num_warm, int(rate * seconds * _SHARE)))
    spec = arsrc.batch_spec(config).data
    batch_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(spec))
    fetched = max(1, min(_MOST_FETCHED, num_steps, _MOST_FETCH_BYTES // max(batch_bytes, 1)))

    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, None]:
        return carry + jax.tree.leaves(batch.data)[0].ravel()[:1].sum().astype(jnp.int32), None

    @jax.jit
    def loop(state: arsrc.SourceState) -> tuple[arsrc.SourceState, Any]:
        state, carry, _ = arsrc.scan_steps(config, state, jnp.int32(0), body, num_steps, batches_per_fetch=fetched)
        return state, carry

    first = arsrc.init(config)
    is_warm = num_warm >= arsrc.steps_per_epoch(config)  # all of it
    state, _ = jax.block_until_ready(loop(first))
    start, num_batches, since_first = perf_counter(), 0, num_steps
    while perf_counter() - start < seconds:
        if not is_warm and since_first + num_steps > num_warm:
            state, since_first = first, 0
        state, _ = jax.block_until_ready(loop(state))
        num_batches += num_steps
        since_first += num_steps
    return _Timed(num_batches, perf_counter() - start)


def _codec(lengths: Lengths, batch_size: int) -> Bytes | Ragged:
    if lengths.are_all and lengths.are_equal:
        return Bytes()
    longest = max(1, int(lengths.lengths.max(initial=1)))
    return Ragged(max_length=min(longest, max(1, _MOST_BATCH_BYTES // batch_size)), overflow="truncate")


def _write(rates: Sequence[_Rate], lengths: Lengths, explained: str) -> None:
    mean = _mean(lengths)
    write_line(f"{counted(lengths.num_records, 'record')} of {mean:,.0f} bytes, warm, shuffled, without a step")
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
    write_line()
    for line in explained.splitlines():
        write_line(line)


def _as_json(rates: Sequence[_Rate], lengths: Lengths, explained: str) -> dict[str, Any]:
    mean = _mean(lengths)
    return {
        "num_records": lengths.num_records,
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
        "explain": explained,
    }


def _mean(lengths: Lengths) -> float:
    return float(lengths.lengths.mean()) if len(lengths.lengths) else 0.0


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(map(whole_number, text.split(",")))
    return sizes if all(sizes) else (int(""),)


def _seconds(text: str) -> float:
    number = float(text)
    return number if 0 < number <= 3600 else float("")
