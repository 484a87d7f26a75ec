"""What limits the reading of a source, and what would help: rules on its options and on what was measured."""

from collections.abc import Mapping
from typing import NamedTuple

from arsrc.amounts import counted, in_bytes, in_seconds

FEW_BATCHES = 20
"""Before so many, what was measured says little."""
WAITING = 0.05
"""Share of its time that a program may wait for batches without being limited by them."""
WASTE = 2.0
"""Records decoded for one that is read, from which on the others count."""
BUSY = 0.5
"""Share of the waiting that loading takes at least, where it is what is waited for."""
COLD = 0.1
"""Share of the reads that wait for the disk, from which on it counts."""
LONG = 50e-6
"""Seconds of a Python function a record, from which on other processes gain more than it costs to get there."""
CHECKSUM = 'checksum="always"'
"""What keeps files from being mapped, where it is the config."""
NO_MAP = "cannot be mapped here"
"""What keeps them from it, where it is the machine."""


class Facts(NamedTuple):
    """What is known of a source.

    Attributes:
        batch_bytes: Decoded bytes of a batch.
        batches_at_once: How many the program asks for together: of a fetch, or a segment.
        all_bytes: Decoded bytes of all records.
        encodings: What keeps files from being mapped: "transposed", for example.
        compressions: Of files that are mapped and decoded: "zstd", for example.
        is_verifying: Whether there are records whose hash is verified when they are first read.
        group_size: Most records that have to be decoded to read one.
        is_random: Whether all records are shuffled, without blocks.
        block_size: Records of a block that is shuffled as a whole, 1 without.
        window_bytes: Bytes of the records of a window of blocks; without, of one of blocks of whole groups.
        is_cached: Whether decoded elements are kept.
        codec: Name of the codec.
        is_python: Whether it calls a Python function for each record.
        num_processes: Worker processes that do so; 0 for the process that reads.
        ahead: "auto", "always" or "never".
        cold: Share of the reads of mapped files that waited for the disk.
        num_threads: That read ahead.
        num_cores: That the process may use.
        read_ahead_bytes: Memory for what is read ahead.
        cache_bytes: Memory for a cache.
        metrics: What `io_metrics` gives.
    """

    batch_bytes: int
    batches_at_once: int
    all_bytes: int
    encodings: tuple[str, ...]
    compressions: tuple[str, ...]
    is_verifying: bool
    group_size: int
    is_random: bool
    block_size: int
    window_bytes: int
    is_cached: bool
    codec: str
    is_python: bool
    num_processes: int
    ahead: str
    cold: float
    num_threads: int
    num_cores: int
    read_ahead_bytes: int
    cache_bytes: int
    metrics: Mapping[str, float]

    @property
    def is_measured(self) -> bool:
        """Whether enough batches were served to judge by."""
        return self.metrics["batches_served"] >= FEW_BATCHES

    @property
    def waiting(self) -> float:
        """Share of its time that the program waited for batches."""
        waited = self.metrics["seconds_waited"]
        return waited / ((waited + self.metrics["seconds_away"]) or 1.0)

    @property
    def waste(self) -> float:
        """Records decoded for each one that was read."""
        return self.metrics["records_decoded"] / max(self.metrics["records_read"], 1)

    @property
    def is_roomy(self) -> bool:
        """Whether the groups of a window are kept: half of the memory is theirs."""
        return 2 * self.window_bytes <= self.read_ahead_bytes

    @property
    def load_bytes(self) -> int:
        """Decoded bytes of what the program asks for together."""
        return self.batch_bytes * self.batches_at_once

    @property
    def enough_bytes(self) -> int:
        """Memory for what is read ahead, and for the groups that it is made of."""
        return 4 * max(self.load_bytes, self.window_bytes if self.group_size > 1 else 0)


class Limit(NamedTuple):
    """What limits a source, and what would help: one of these."""

    what: str
    helps: tuple[str, ...]


def limits(facts: Facts) -> list[Limit]:
    """Return what limits the reading of a source, the most costly first; nothing where nothing is known to."""
    found = [_groups(facts), _room(facts)]
    if facts.is_measured and facts.waiting >= WAITING:
        found += [_ahead(facts), _loading(facts) or _memory(facts)]
    return [limit for limit in found if limit is not None]


def _groups(facts: Facts) -> Limit | None:
    """Whole groups are decoded for some of their records."""
    size, block_size = facts.group_size, facts.block_size
    if size == 1 or (facts.is_measured and facts.waste < WASTE):
        return None
    so_far = f" (so far {facts.waste:.3g} records for each one read)" if facts.is_measured else ""
    single = "write the files again by write_array_record, whose records are read one by one"
    if facts.is_random:
        what = f"groups of {size} are read at random: each record costs its whole group{so_far}"
        room = "" if facts.is_roomy else f" and ReadOptions(read_ahead_bytes={facts.enough_bytes})"
        return Limit(what, (f"set shuffle_block_size={size}{room}, which decodes each group once", single))
    if block_size % size and block_size > 1:
        what = f"blocks of {block_size} cut groups of {size}, which are decoded again for each block{so_far}"
        return Limit(what, (f"set shuffle_block_size={-(-block_size // size) * size}", single))
    if not facts.is_roomy:
        what = f"windows of {in_bytes(facts.window_bytes)} are not kept: groups are decoded for each batch{so_far}"
        enough = f"set ReadOptions(read_ahead_bytes={facts.enough_bytes})"
        return Limit(what, (enough, "set a smaller shuffle_window_blocks"))
    return None


def _room(facts: Facts) -> Limit | None:
    """Batches are too large to be read ahead."""
    if facts.ahead == "never" or 2 * facts.load_bytes <= facts.read_ahead_bytes:
        return None
    enough = f"set ReadOptions(read_ahead_bytes={facts.enough_bytes})"
    if facts.batches_at_once == 1:
        return Limit(f"batches of {in_bytes(facts.batch_bytes)} are too large to be read ahead", (enough,))
    what = f"{facts.batches_at_once} batches at a time, {in_bytes(facts.load_bytes)}, are too large to be read ahead"
    return Limit(what, (enough, "ask for fewer at a time"))


def _ahead(facts: Facts) -> Limit | None:
    """Nothing is read ahead."""
    if facts.ahead != "never":
        return None
    how = 'ahead="auto"' if facts.read_ahead_bytes else f"read_ahead_bytes={facts.enough_bytes}"
    return Limit("nothing is read ahead", (f"set ReadOptions({how})",))


def _loading(facts: Facts) -> Limit | None:
    """Records are read and decoded more slowly than they are used."""
    metrics = facts.metrics
    in_codec, num_records = metrics["seconds_in_codec"], metrics["records_read"]
    reading = metrics["seconds_read"] - in_codec
    if metrics["seconds_read"] < BUSY * metrics["seconds_waited"] or not num_records:
        return None
    if in_codec >= reading:
        what = f"the codec {facts.codec} takes {in_seconds(in_codec / num_records)} a record"
        if facts.is_python and facts.num_processes:
            more = (_processes(facts),) if facts.num_cores > facts.num_processes else ()
            return Limit(f"{what}, in {counted(facts.num_processes, 'worker process')}", (_cache(facts), *more))
        if facts.is_python:
            processes = (_processes(facts),) if in_codec >= LONG * num_records else ()
            return Limit(f"{what}, in Python, which runs on one core at a time", (_cache(facts), *processes))
        return Limit(what, (_cache(facts), *_threads(facts)))
    rate = in_bytes(metrics["bytes_read"] / reading)
    what = f"reading takes {in_seconds(reading / num_records)} a record ({rate} a second)"
    if CHECKSUM in facts.encodings:
        return Limit(f"{what}, by array_record's reader, which checks hashes", ('set ReadOptions(checksum="auto")',))
    if facts.is_verifying:
        what = f"{what}, by array_record's reader the first time, which checks hashes"
        return Limit(what, ("wait for later epochs, which are read from the map", 'set ReadOptions(checksum="auto")'))
    again = "write the files again by write_array_record, which does not compress"
    if facts.encodings:
        what = f"{what}, by array_record's reader ({', '.join(facts.encodings)})"
        is_by_files = set(facts.encodings) != {NO_MAP}
        return Limit(what, (_cache(facts), *([again] if is_by_files else []), *_threads(facts)))
    if facts.cold >= COLD:
        blocks = ("set shuffle_block_size=256, so that neighbours are read together",) if facts.is_random else ()
        threads = f"set ReadOptions(num_threads={max(8, 2 * facts.num_threads)}), for disks that serve many at once"
        return Limit(f"{what}, as the disk allows", (_cache(facts), threads, *blocks))
    if facts.compressions:
        what = f"{what}, decoded from {' and '.join(facts.compressions)}"
        return Limit(what, (_cache(facts), again, *_threads(facts)))
    return None


def _memory(facts: Facts) -> Limit:
    """Batches come as fast as the host can be asked for them."""
    seconds = facts.metrics["seconds_waited"] / facts.metrics["batches_served"]
    what = f"batches come from memory, one in {in_seconds(seconds)}, and the program does little else"
    more = ("in a scan, set batches_per_fetch=16",) if facts.batches_at_once == 1 else ()
    return Limit(what, (*more, "use load_resident, which needs no callback"))


def _cache(facts: Facts) -> str:
    if facts.is_cached:
        return "wait for later epochs, which come from the cache"
    where = "in memory" if facts.all_bytes <= facts.cache_bytes else "in files, with ReadOptions(cache_dir=...)"
    return f"set cacheable=True, which keeps decoded records ({in_bytes(facts.all_bytes)}) {where}"


def _processes(facts: Facts) -> str:
    return f"set Map(..., num_processes={facts.num_cores}), which decodes in processes of their own"


def _threads(facts: Facts) -> list[str]:
    more = facts.num_cores > facts.num_threads
    return [f"set ReadOptions(num_threads={facts.num_cores}), one for each core"] if more else []
