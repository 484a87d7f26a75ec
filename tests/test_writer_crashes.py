"""A writer that ends at any of its calls, and a disk that loses what was not synced: no mixture is read."""

import collections
import sys
from pathlib import Path

import hypothesis
import pytest
from fault_systems import CRASH, Crash, Injecting, InMemory, Nth, in_place

import arsrc

IS_THOROUGH = hypothesis.settings().max_examples > 100
NUM_FAILURES = 40 if IS_THOROUGH else 8  # of the power, at each call
MIXED = "an error that a set is a mixture"
OLD, NEW, NEWER = ([b"%s record %02d" % (name, number) for number in range(12)] for name in (b"old", b"new", b"nwr"))


def read(paths: str | list[str]) -> list[bytes]:
    """All records of a set, without anything kept open."""
    config = arsrc.ArrayRecordSourceConfig(paths, 4, num_epochs=1)
    try:
        return sorted(bytes(row) for _, batch in arsrc.iterate(config) for row in batch.data)
    finally:
        arsrc.close()


def disk(folder: Path) -> InMemory:
    """A disk that has a folder, in which array_record's writer writes beside it."""
    memory = InMemory(beside=str(folder))
    memory.make_folder(str(folder))
    return memory


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("before", ["nothing", "old"])
def test_after_a_crash_at_any_call_the_old_set_is_read_or_the_new_one_or_an_error(
    tmp_path: Path, num_shards: int, before: str
) -> None:
    path, outcomes = str(tmp_path / "data.array_record"), collections.Counter[str]()
    name = path if num_shards == 1 else f"{tmp_path}/data@3.array_record"
    n, is_reached = 1, True
    while is_reached:
        memory = disk(tmp_path)
        if before == "old":
            with in_place(memory):
                arsrc.write_array_record(path, OLD, num_shards=num_shards)
        calls = Injecting(memory, Nth(CRASH, n, once=False))
        with in_place(calls):
            try:
                arsrc.write_array_record(path, NEW, num_shards=num_shards)
            except Crash:
                pass
            else:
                is_reached = calls.num_faults > 0
        for seed in range(NUM_FAILURES):
            after = memory.after_power_failure((n, seed))
            with in_place(after):
                try:
                    found = read(name)
                except arsrc.ArsrcReadError as error:
                    outcome = MIXED if "mixture" in str(error) else f"another error: {error}"
                except arsrc.ArsrcFileNotFoundError:
                    outcome = "nothing"
                else:
                    outcome = {str(sorted(OLD)): "old", str(sorted(NEW)): "new"}.get(str(found), "a mixture")
                outcomes[outcome] += 1
                assert outcome in ("new", before, MIXED), f"call {n}, seed {seed}"
                assert is_reached or outcome == "new"  # what was written is on the disk
                if seed and not IS_THOROUGH:
                    continue
                # What was left holds up nobody, and what is written now is read.
                arsrc.write_array_record(path, NEWER, num_shards=num_shards)
                assert read(name) == sorted(NEWER)
                assert len(after.names()) == num_shards or num_shards == 1
        n += 1
    assert outcomes.keys() >= {"new", before}
    assert (MIXED in outcomes) == (num_shards > 1)
    sys.stdout.write(f"\n{num_shards} shards over {before}: {dict(outcomes)}")  # seen with -s
