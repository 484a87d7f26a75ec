"""What is fixed about a source: `ArrayRecordSourceConfig` and `ReadOptions`, checked at construction."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from arsrc._host.storage import paths as files
from arsrc._host.storage.file_names import absolute
from arsrc.codecs import Bytes, Codec
from arsrc.codecs.check import check_codec, whole_number
from arsrc.codecs.decoder import ElementDecoder, decoder_of
from arsrc.codecs.packed import Packed
from arsrc.errors import ArsrcTypeError, ArsrcValueError, said
from arsrc.frozen import FrozenStats, HashOnce, Terse
from arsrc.order.plan import Plan
from arsrc.selection import parse_ranges, selection_of
from arsrc.views.packing import Packing

Remainder = Literal["drop", "pad", "wrap"]
Checksum = Literal["auto", "first", "always"]
Ahead = Literal["auto", "always", "never"]
OnBadRecord = Literal["raise", "mask"]

MAX_BATCH_SIZE = 2**30
"""Largest batch size; keeps every sum of the u32 arithmetic below 2**32."""

_MOST_SHOWN = 3
_YEAR = 365 * 86_400  # seconds


def _boolean(field: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ArsrcTypeError(field, "must be True or False", **{field: value})
    return bool(value)


def _one_of(field: str, value: Any, allowed: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ArsrcValueError(field, f"must be one of {choices}", **{_leaf(field): value})


def _ranges(exclude: Any) -> tuple[tuple[int, int], ...]:
    """Return record ids and ranges of them as sorted, disjoint ranges."""
    if isinstance(exclude, (str, bytes)) or not isinstance(exclude, Iterable):
        raise ArsrcTypeError("exclude", "must be record ids and ranges (start, stop)", exclude=exclude)
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(parse_ranges("exclude", exclude)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        elif start < stop:
            joined.append((start, stop))
    return tuple(joined)


def _seconds(field: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArsrcTypeError(field, "must be a number of seconds or None", **{_leaf(field): value})
    if not 0 < value <= _YEAR:
        fix = "None waits for ever."
        raise ArsrcValueError(field, "must be more than 0, and a year at most", fix, **{_leaf(field): value})
    return float(value)


def _leaf(field: str) -> str:
    return field.rpartition(".")[2]


@dataclasses.dataclass(frozen=True, repr=False)
class ReadOptions(Terse):
    """How records are read. Changes speed and memory, and no result but that of damaged files.

    Attributes:
        num_threads: Threads that read ahead.
        read_ahead_bytes: Memory for what is kept for later, in bytes, over all configs of the same files: batches
            read ahead, decoded groups, and buffers to be used again; 0 reads each batch when it is asked
            for.
        max_open_files: Files held open at once, of those that array_record reads; the least recently used ones are
            closed. Lowered by itself where the process may open fewer.
        cache_bytes: Memory that `cacheable=True` may fill with decoded elements, in bytes.
        cache_dir: Folder for a cache that exceeds `cache_bytes`; None refuses such a cache. `init` raises where it
            cannot be used or has no room for all decoded records. If room runs out later, or the disk fails, that is
            logged, once: what is there stays in use, and the rest is read from the data. What was found in it is
            compared with its checksum when a process first takes it. A folder that cannot be written to is only read.
            Processes of one machine may share it, machines must not. Kept as an absolute path.
        checksum: "always" reads through array_record's reader, which verifies a hash of each chunk it reads. "auto"
            reads through a memory map, which is many times faster and does not notice flipped bits inside a record.
            "first" reads each record by array_record's reader the first time that this process reads it, and from the
            map from then on; it remembers one bit a record, until `close`.
        ahead: "auto" lets threads load batches ahead where that is of use, judged by how long loads and the steps
            between them take; "always" and "never" decide.
        timeout_seconds: A read that takes longer is an error that names what was being read, and the next call reads
            again; None waits for ever, and logs a warning after 30 s. Each piece of reading has so much time: to open
            some files, to look at them, to read what a batch needs of one. It is done on another thread, which is left
            behind where it hangs, and by system calls: some 200 microseconds more a batch and 2 a record. Codecs and
            caches have no limit.
    """

    num_threads: int = 2
    read_ahead_bytes: int = 256 * 2**20
    max_open_files: int = 256
    cache_bytes: int = 4 * 2**30
    cache_dir: str | None = None
    checksum: Checksum = "auto"
    ahead: Ahead = "auto"
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        for field, least in (
            ("num_threads", 1),
            ("read_ahead_bytes", 0),
            ("max_open_files", 1),
            ("cache_bytes", 0),
        ):
            number = whole_number(f"ReadOptions.{field}", field, getattr(self, field), least)
            object.__setattr__(self, field, number)
        object.__setattr__(self, "timeout_seconds", _seconds("ReadOptions.timeout_seconds", self.timeout_seconds))
        if self.cache_dir is not None:
            given: Any = self.cache_dir
            folder = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
            if not isinstance(folder, str):
                raise ArsrcTypeError("ReadOptions.cache_dir", "must be a path or None", cache_dir=given)
            object.__setattr__(self, "cache_dir", absolute(folder, "ReadOptions.cache_dir"))
        _one_of("ReadOptions.checksum", self.checksum, get_args(Checksum))
        _one_of("ReadOptions.ahead", self.ahead, get_args(Ahead))


@dataclasses.dataclass(frozen=True, repr=False)
class ArrayRecordSourceConfig(HashOnce, Terse):
    """Everything static about a source: which records, how they are decoded, and in which order they come.

    Configs are values: equal configs hash equal, share one set of open files and trace once. Pass them as
    static arguments, or close over them; `dataclasses.replace` makes a changed copy.

    Attributes:
        paths: A path, a glob, or a sequence of them; `"file[10:90]"` is a slice of a file's records; objects
            with `filename`, `skip`, `take` and `examples_in_shard` (TFDS file instructions) are slices too;
            `"name@4"` means the shards `name-00000-of-00004` to `name-00003-of-00004`, `"name@*"` those of the one
            complete set, and `"name@4.array_record"` shards with this ending. A file that has just the name that is
            given is meant before anything else. `~` is the home folder. Kept as a tuple of absolute paths.
        batch_size: Records of a global batch, over all devices and hosts.
        codec: Turns record bytes into arrays; see `arsrc.codecs`.
        seed: Seed of the order, in `[0, 2**32)`; the default key of `init`.
        num_epochs: Passes over the data before the source is exhausted; -1 is endless.
        shuffle_files: Permute the files each epoch; records stay in order inside a file.
        shuffle_records: Permute all records each epoch, whatever their files; excludes `shuffle_files`.
        shuffle_block_size: With more than 1, `shuffle_records` has locality, for files that are compressed in
            groups or far away: blocks of this many neighbouring records move together.
        shuffle_window_blocks: How many blocks form a window, inside which their records are mixed.
        remainder: What happens to the `num_records % batch_size` records at an epoch's end: "drop" passes
            them over, "pad" serves a last batch filled up with masked zeros, "wrap" fills it up from the next
            epoch.
        exclude: Record ids, and ranges `(start, stop)` of them, that are served as padding: their rows have a
            False mask and zeros, and no batch reads them; `take` still does. Everything else stays in its place, so
            that a run can go on without records that harmed it. Kept as a tuple of ranges.
        stochastic: The caller gives the key at `init`; needs `stream_name`.
        stream_name: Name of the caller's key stream; folded into the key.
        local_files_only: Check at construction that every path exists.
        cacheable: Keep decoded elements, so that later epochs skip files and decoding.
        batch_stats_fn: Function behind `compute_statistics`.
        precomputed_stats: What `get_statistics` gives; excludes `batch_stats_fn`. Copied: arrays too.
        name: A label for errors, metrics and profiles.
        read: Threads, read-ahead, memory and descriptors: speed only.
        on_bad_record: With "mask", a record that cannot be read or decoded is a masked row, as one of `exclude` is, and
            `bad_records` lists it; with "raise" it is an error. A file that is gone or cannot be opened is one in
            either case, and so is what is no record's fault: a codec whose arrays are not what its spec says, that
            fails for several records and for none of them alone, or that has too little memory.
        select: Which records are rows: a boolean array, record ids and ranges `(start, stop)` of them, a `Selection` as
            `select_records` makes it, or the path of a saved one. Rows are numbered densely, in the order of the
            records: `num_records` counts them, and `record_ids` and `exclude` mean them; `origin` says which records
            they are. Batches are full, and orders, epochs and caches are those of a data set of these records alone.
            Kept as a `Selection`.
        pack: Makes rows of tokens out of records that are documents: one array of tokens each, as of `Ragged`. Which
            documents stand in which row is found out from their lengths when the source is opened, and kept under
            `read.cache_dir` where there is one. `num_records` and `record_ids` count rows; `exclude` still means
            records, in whose place rows hold padding (`segment_ids` 0), as in place of bad ones that are masked.

    Raises:
        ArsrcValueError: A field has a value that cannot be used (at construction).
        ArsrcTypeError: A field has a type that cannot be used (at construction).
        ArsrcFileNotFoundError: `local_files_only` and a path is missing (at construction; all are named).
    """

    paths: Any
    batch_size: int
    codec: Codec = Bytes()
    seed: int = 42
    num_epochs: int = -1
    shuffle_files: bool = False
    shuffle_records: bool = False
    shuffle_block_size: int = 1
    shuffle_window_blocks: int = 32
    remainder: Remainder = "drop"
    exclude: Any = ()
    stochastic: bool = False
    stream_name: str | None = None
    local_files_only: bool = False
    cacheable: bool = False
    batch_stats_fn: Callable[[Any], Any] | None = None
    precomputed_stats: Mapping[str, Any] | None = None
    name: str | None = None
    read: ReadOptions = ReadOptions()
    on_bad_record: OnBadRecord = "raise"
    select: Any = None
    pack: Packing | None = None

    __hash__ = HashOnce.__hash__

    def __post_init__(self) -> None:
        put = lambda field, value: object.__setattr__(self, field, value)  # noqa: E731
        put("paths", files.normalize(self.paths))
        for field, least, most in (
            ("batch_size", 1, MAX_BATCH_SIZE),
            ("seed", 0, 2**32 - 1),
            ("num_epochs", -1, 2**32 - 2),
            ("shuffle_block_size", 1, 2**31),
            ("shuffle_window_blocks", 1, 2**31),
        ):
            put(field, whole_number(field, field, getattr(self, field), least, most))
        if self.num_epochs == 0:
            raise ArsrcValueError(
                "num_epochs", "zero epochs serve nothing", "Use -1 for endless, or 1 or more.", num_epochs=0
            )
        for field in ("shuffle_files", "shuffle_records", "stochastic", "local_files_only", "cacheable"):
            put(field, _boolean(field, getattr(self, field)))
        self._check_shuffles()
        put("exclude", _ranges(self.exclude))
        put("select", selection_of(self.select))
        if self.pack is not None and not isinstance(self.pack, Packing):
            raise ArsrcTypeError("pack", "must be a Packing or None", "Say Packing(length).", pack=self.pack)
        _one_of("remainder", self.remainder, get_args(Remainder))
        _one_of("on_bad_record", self.on_bad_record, get_args(OnBadRecord))
        check_codec(self.codec)
        _check_stream(self.stochastic, self.stream_name)
        self._check_statistics()
        put("precomputed_stats", _frozen(self.precomputed_stats))
        if self.name is not None and not isinstance(self.name, str):
            raise ArsrcTypeError("name", "must be a string or None", name=self.name)
        if not isinstance(self.read, ReadOptions):
            raise ArsrcTypeError("read", "must be a ReadOptions", read=self.read)
        if self.local_files_only:
            files.expand(self.paths)
        try:
            hash(self)
        except Exception as error:
            raise ArsrcTypeError(
                "config",
                f"a field cannot be hashed ({said(error)})",
                "Codecs must be frozen dataclasses of hashable values.",
            ) from error

    @functools.cached_property
    def _of_programs(self) -> "ArrayRecordSourceConfig":
        """The config but for what no compiled program depends on: those that differ in this share all that is open."""
        found = object.__new__(type(self))
        others = {"seed": 0, "local_files_only": False, "batch_stats_fn": None, "precomputed_stats": None}
        found.__dict__.update(self.__getstate__() | others | {"_of_programs": found})
        return found

    @property
    def _masks(self) -> bool:
        """Whether bad records are masked rows."""
        return self.on_bad_record == "mask"

    def _decoder(self, first_record: bytes) -> ElementDecoder:
        """Return what decodes the records, with the codec resolved by the first one; host only."""
        return decoder_of(self.codec, first_record)

    @property
    def _sources(self) -> "tuple[ArrayRecordSourceConfig, ...]":
        """The sources, as a mixture has several."""
        return (self,)

    @property
    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the sources that are read together."""
        return ((0,),)

    def _plan(self, plans: Sequence[Plan]) -> Plan:
        """Return the plan, where those of the sources are these.

        Raises:
            ArsrcValueError: There is no batch.
        """
        (plan,) = plans
        if plan.steps_per_epoch == 0:
            raise ArsrcValueError(
                "batch_size",
                f"is larger than the data set ({plan.num_records} records) and remainder is 'drop'",
                'Use a smaller batch_size, or remainder="pad" or "wrap".',
                batch_size=self.batch_size,
            )
        return plan

    def _row_codec(self, codecs: Sequence[Codec]) -> Codec | Packed:
        """Return what has the spec of rows, where these decode the records of groups."""
        (codec,) = codecs
        return codec if self.pack is None else Packed(codec, self.pack)

    def _shown(self, field: str) -> str:
        if field == "select":
            return repr(self.select)
        if field == "exclude":
            return f"<{sum(stop - start for start, stop in self.exclude)} records>"
        if field == "paths" and len(self.paths) == 1:
            return repr(self.paths[0])
        if field == "paths" and len(self.paths) > _MOST_SHOWN:
            return f"<{self.paths[0]!r} and {len(self.paths) - 1} more>"
        return super()._shown(field)

    def _check_shuffles(self) -> None:
        if self.shuffle_files and self.shuffle_records:
            raise ArsrcValueError(
                "shuffle_files",
                "shuffle_files and shuffle_records exclude each other",
                "Set one of them: shuffle_records mixes the records of all files, for locality in blocks.",
            )
        if self.shuffle_block_size == 1:
            return
        if not self.shuffle_records:
            raise ArsrcValueError(
                "shuffle_block_size",
                "blocks are a way to shuffle records, and records are not shuffled",
                "Set shuffle_records=True.",
                shuffle_block_size=self.shuffle_block_size,
            )
        if self.shuffle_block_size * self.shuffle_window_blocks >= 2**32:
            raise ArsrcValueError(
                "shuffle_window_blocks",
                "a window has 2**32 records or more",
                "Use smaller blocks or fewer.",
                shuffle_block_size=self.shuffle_block_size,
                shuffle_window_blocks=self.shuffle_window_blocks,
            )

    def _check_statistics(self) -> None:
        if self.batch_stats_fn is not None and self.precomputed_stats is not None:
            raise ArsrcValueError(
                "batch_stats_fn", "batch_stats_fn and precomputed_stats exclude each other", "Give one of them."
            )
        if self.batch_stats_fn is not None and not callable(self.batch_stats_fn):
            raise ArsrcTypeError("batch_stats_fn", "must be callable or None", batch_stats_fn=self.batch_stats_fn)


def _frozen(stats: Any) -> FrozenStats | None:
    if stats is None or isinstance(stats, FrozenStats):
        return stats
    if not (isinstance(stats, Mapping) and all(isinstance(key, str) for key in stats)):
        raise ArsrcTypeError("precomputed_stats", "must be a mapping from strings, or None", precomputed_stats=stats)
    try:
        with jax.ensure_compile_time_eval():  # copies of JAX arrays that are made in a trace are no arrays
            return FrozenStats(stats)
    except Exception as error:
        what, fix = f"cannot be copied ({said(error)})", "Give numbers, arrays, texts, and containers of these."
        raise ArsrcTypeError("precomputed_stats", what, fix, names=list(stats)) from error


def _check_stream(stochastic: bool, stream_name: Any) -> None:
    if stochastic and stream_name is None:
        raise ArsrcValueError("stream_name", "stochastic=True needs a stream_name", 'For example stream_name="data".')
    if not stochastic and stream_name is not None:
        raise ArsrcValueError(
            "stream_name",
            "only a stochastic source has a key stream",
            "Set stochastic=True, or leave stream_name out.",
            stream_name=stream_name,
        )
    if stream_name is not None and not isinstance(stream_name, str):
        raise ArsrcTypeError("stream_name", "must be a string", stream_name=stream_name)
