"""The cases: figures that arsrc is to reach, and against whom."""

import dataclasses
import functools

import _waiting
from _ratios import Ratios, cpu_seconds, rates, times


@dataclasses.dataclass(frozen=True)
class Case:
    """A figure to reach.

    Attributes:
        name: For the command line.
        race: Name of the race that shows it.
        what: What is compared with what.
        ratios: The ratio in each round of the race; empty where a side is missing.
        at_least: The target where more is better.
        at_most: The target where less is better. Without either there is none.
    """

    name: str
    race: str
    what: str
    ratios: Ratios
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The target as a text."""
        if self.at_least is None and self.at_most is None:
            return "none"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def verdict(self, ratio: float | None) -> str:
        """Whether a ratio reaches the target."""
        if ratio is None:
            return "not measured"
        if self.at_least is None and self.at_most is None:
            return "measured"
        is_met = ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0)
        return "reached" if is_met else "MISSED"


_SCAN, _ONE, _SIXTEEN = "arsrc, scan", "arsrc, scan, 1 per fetch", "arsrc, scan, 16 per fetch"
_READ_256, _READ_4096, _ITEMS_256 = "official read(256)", "official read(4096)", "official __getitems__(256)"

CASES = (
    Case(
        "grain-60k",
        "60k",
        "784 B uncompressed, 60k records, best number of batches per fetch, over Grain's fastest",
        rates(_SCAN, over="Grain"),
        at_least=150,
    ),
    Case("read-60k", "60k", "the same, over the official read of 256", rates(_SCAN, over=_READ_256), at_least=6),
    Case(
        "core-read",
        "60k",
        "784 B uncompressed, 60k records, one batch per fetch, over the official read of 256",
        rates(_ONE, over=_READ_256),
        at_least=0.9,
    ),
    Case("core-grain", "60k", "the same, over Grain's MapDataset", rates(_ONE, over="Grain MapDataset"), at_least=10),
    Case(
        "callback",
        "60k",
        "one batch per callback, over a bare callback that returns a constant of that shape",
        rates(_ONE, over="bare io_callback"),
        at_least=0.7,
    ),
    Case(
        "callback-told",
        "60k",
        "the same, over a bare callback that is told which records are wanted",
        rates(_ONE, over="io_callback with an operand"),
        at_least=0.7,
    ),
    Case(
        "by-hand",
        "60k",
        "the same, over a callback that gathers from a NumPy array of all records, in an order that is given",
        rates(_ONE, over="io_callback by hand"),
        at_least=1.0,
    ),
    Case(
        "grain-1m",
        "1m",
        "784 B uncompressed, 1M records in 4 files, best number of batches per fetch, over Grain's fastest",
        rates(_SCAN, over="Grain"),
        at_least=500,
    ),
    Case(
        "read-1m",
        "1m",
        "the same, over the official read of 256, file by file or with a thread for each file",
        rates(_SCAN, over=(_READ_256, _ITEMS_256)),
        at_least=25,
    ),
    Case("shards", "shards", "64 files, over one file of the same records", rates("64 files", over="1 file"), 0.8),
    Case(
        "body",
        "body",
        "16 batches per fetch, step of 2 ms or more, over the same scan with a gather on the device",
        rates(_SIXTEEN, over="device gather"),
        at_least=0.95,
    ),
    Case(
        "body-nested",
        "body",
        "the same, over a scan that gathers 16 batches at once on the device",
        rates(_SIXTEEN, over="gather on the device, 16"),
        at_least=0.95,
    ),
    Case(
        "gather",
        "large",
        "150,528 B records, gather on the host, over memcpy of the same bytes",
        rates("arsrc, host gather", over="memcpy"),
        at_least=0.8,
    ),
    Case(
        "zstd",
        "zstd",
        "784 B, zstd, group size 1, best number of batches per fetch, over the official read of 4096",
        rates(_SCAN, over=_READ_4096),
        at_least=1.3,
    ),
    Case("zstd-cpu", "zstd", "the same, in CPU seconds a record", cpu_seconds(_SCAN, over=_READ_4096), at_most=0.65),
    Case(
        "zstd-bare",
        "zstd",
        "the same, over zstd alone on as many threads",
        rates(_SCAN, over="bare zstd"),
        at_least=0.8,
    ),
    Case(
        "noise",
        "noise",
        "784 B that no codec shrinks, zstd, group size 1, over the official read of 4096",
        rates(_SCAN, over=_READ_4096),
        at_least=5,
    ),
    Case("noise-mapped", "noise", "the same, over the same records uncompressed", rates(_SCAN, over="mapped"), 0.6),
    Case("noise-12k", "noise-12k", "the same, 12 KB", rates(_SCAN, over="mapped"), at_least=0.8),
    Case("noise-110k", "noise-110k", "the same, 110 KB", rates(_SCAN, over="mapped"), at_least=0.8),
    Case(
        "blocks",
        "blocks",
        "784 B, zstd, group size 256, shuffled in blocks of 256, over the official random read of 256",
        rates(_SCAN, over=_READ_256),
        at_least=20,
    ),
    Case(
        "wait",
        "wait",
        "step that waits c ms, zstd source that takes r ms: time per step over max(c, r), worst c",
        functools.partial(_waiting.ratios, "zstd"),
        at_most=1.25,
    ),
    Case("wait-mapped", "wait", "the same, uncompressed", functools.partial(_waiting.ratios, "mapped"), at_most=1.1),
    Case(
        "wait-large",
        "wait-large",
        "the same, uncompressed, batches of 38.5 MB",
        functools.partial(_waiting.ratios, "large"),
        at_most=1.1,
    ),
    Case(
        "cache-zstd",
        "cache",
        "second epoch of a cacheable zstd source, over the mapped uncompressed one",
        rates("cached zstd", over="mapped"),
        at_least=0.8,
    ),
    Case(
        "cache-decoded",
        "cache",
        "second epoch of a cacheable source decoded record by record in Python, over the same",
        rates("cached inflate", over="mapped"),
        at_least=0.8,
    ),
    Case(
        "checksum-first",
        "checksum",
        'second epoch with checksum="first", over the one without checksums',
        rates("first, second epoch", over="auto, second epoch"),
        at_least=0.9,
    ),
    Case(
        "python",
        "python",
        "a millisecond of Python a record, two worker processes, over Grain with two",
        rates("arsrc, 2 processes", over="Grain MapDataset, 2 processes"),
        at_least=1.0,
    ),
    Case(
        "python-here",
        "python",
        "the same, over the process that trains",
        rates("arsrc, 2 processes", over="arsrc, in process"),
        at_least=1.7,
    ),
    Case(
        "python-cheap",
        "python-cheap",
        "json.loads of 200 bytes a record, two worker processes, over the process that trains",
        rates("arsrc, 2 processes", over="arsrc, in process"),
        at_least=0.5,
    ),
    Case(
        "cold",
        "cold",
        "784 B uncompressed, 1M records in 4 files, cold page cache, over the official reader",
        rates("arsrc, cold", over="official, cold"),
        at_least=1.5,
    ),
    Case(
        "example-loop",
        "example",
        "tf.train.Example of 784 B and a label, uncompressed, over a bare loop of protobuf on one core",
        rates(_SCAN, over="bare loop"),
        at_least=3,
    ),
    Case("example-grain", "example", "the same, over Grain's fastest", rates(_SCAN, over="Grain"), at_least=50),
    Case(
        "example-read",
        "example-zstd",
        "the same, zstd, group size 1, over the official read of 4096 and that loop",
        rates(_SCAN, over=_READ_4096),
        at_least=2,
    ),
    Case("example-z-grain", "example-zstd", "the same, over Grain's fastest", rates(_SCAN, over="Grain"), at_least=20),
    Case("msgpack", "msgpack", "the same in msgpack, over a bare loop", rates(_SCAN, over="bare loop"), at_least=0.8),
    Case(
        "example-jpeg",
        "example-jpeg",
        "tf.train.Example of a JPEG of 10 kB to 96 x 96 x 3, over Grain's fastest",
        rates(_SCAN, over="Grain"),
        at_least=1.5,
    ),
    Case("jpeg", "jpeg", "such JPEGs alone, over a bare loop on one core", rates(_SCAN, over="bare loop"), 1.7),
    Case(
        "open",
        "open",
        "time to open 1M records in one file, over the official reader's",
        times("arsrc, open", over="official, open"),
        at_most=3,
    ),
    Case("open-4", "open-4", "the same, in 4 files", times("arsrc, open", over="official, open"), at_most=3),
    Case(
        "open-zstd",
        "open-zstd",
        "the same, in one file, zstd, group size 1",
        times("arsrc, open", over="official, open"),
        at_most=3,
    ),
)
