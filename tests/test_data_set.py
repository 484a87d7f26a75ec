"""Files of all kinds as one sequence of records: one numbering, whoever reads; opening, noticing changes, closing."""

import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mapped_files import opened, some_records

from arsrc._host.format.numbering import Found, Numbering
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.readers import files as opening
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.readers.official import ReaderPool
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp
from arsrc.errors import ArsrcIndexError, ArsrcReadError, ArsrcValueError

only_linux = pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="files are mapped on Linux only")

WriteRecords = Callable[..., str]

NUM_RECORDS = 40
EQUAL, RAGGED = [300] * NUM_RECORDS, [row * 37 % 500 for row in range(NUM_RECORDS)]
LARGE = [70_000 + row for row in range(NUM_RECORDS)]
KINDS: dict[str, tuple[str, Sequence[int]]] = {
    "uniform": ("group_size:1,uncompressed", EQUAL),
    "uniform of another length": ("group_size:1,uncompressed", [7] * NUM_RECORDS),
    "uniform groups": ("group_size:6,uncompressed", EQUAL),
    "spans": ("group_size:1,uncompressed", RAGGED),
    "large spans": ("group_size:1,uncompressed", LARGE),
    "groups": ("group_size:6,uncompressed", RAGGED),
    "padded": ("group_size:7,uncompressed,pad_to_block_boundary:true", RAGGED),
    "compressed": ("group_size:1,zstd", RAGGED),
    "compressed groups": ("group_size:6,zstd", EQUAL),
    "transposed": ("group_size:6,uncompressed,transpose:true", RAGGED),
}
UNMAPPED = {"compressed", "compressed groups", "transposed"}
GROUPS = {"compressed": 1, "compressed groups": 6, "transposed": 6}


def open_data_set(*slices: FileSlice, **options: Any) -> DataSet:
    memory = {"buffers": BufferPool(1 << 24), "groups": GroupCache(1 << 20)}
    defaults = {"checksum": "auto", "max_open_files": 8, "random_access": True, **memory}
    return DataSet(slices, **(defaults | options))


def records_of(data_set: DataSet, ids: Any) -> list[bytes]:
    batch = data_set.read(np.asarray(ids, np.int64)).records
    assert len(batch) == len(ids)
    return [batch[row] for row in range(len(batch))]


# The numbering.

sizes = st.one_of(st.integers(0, 3), st.integers(0, 40), st.integers(10_000, 1_000_000))


@given(st.lists(st.tuples(st.integers(0, 50), sizes), min_size=1, max_size=20), st.data())
@example([(3, 0), (0, 1), (5, 0), (5, 0), (2, 7), (1, 0)], None)
def test_a_record_is_in_the_slice_whose_turn_it_is(parts: list[tuple[int, int]], data: Any) -> None:
    slices = [FileSlice(str(number), start, start + size) for number, (start, size) in enumerate(parts)]
    total = sum(size for _, size in parts)
    if not total:
        return
    numbering = Numbering(slices)
    assert numbering.num_records == total
    ends = np.cumsum([piece.num_records for piece in slices]).tolist()
    edges = [i for end in ends for i in (end - 1, end) if 0 <= i < total]
    ids = edges + (data.draw(st.lists(st.integers(0, total - 1), max_size=30)) if data else [])
    found = numbering.find(np.array(ids))
    for record_id, slice_number, position, name in zip(ids, *found, strict=True):
        assert name == record_id
        path = next(p.path for p, end in zip(slices, ends, strict=True) if record_id < end)
        assert numbering.slices[slice_number].path == path
        piece = slices[int(path)]
        assert position == piece.start + record_id - (ends[int(path)] - piece.num_records)
    assert numbering.ids(found).tolist() == ids
    some = found.at(np.arange(0, len(ids), 2))
    assert isinstance(some, Found)
    assert numbering.ids(some).tolist() == ids[::2]
    for wrong in (-1, total, 2**40, -(2**63)):
        with pytest.raises(ArsrcIndexError, match=rf"outside \[0, {total}\); got record_id={wrong}\."):
            numbering.find(np.array([0, wrong]))


# All kinds of files together.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, write_records: WriteRecords) -> dict[str, tuple[str, list[bytes]]]:
    """Path and records of a file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    content = {kind: some_records(kind, lengths) for kind, (_, lengths) in KINDS.items()}
    return {kind: (write_records(folder / kind, content[kind], KINDS[kind][0]), content[kind]) for kind in KINDS}


@pytest.fixture(scope="module", params=[True, False], ids=["opened at once", "opened when first read"])
def at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """As with few files, or as with many whose counts are given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_TOGETHER", 32 if request.param else 1)
        yield


bounds = st.tuples(st.integers(0, NUM_RECORDS), st.integers(0, NUM_RECORDS)).map(sorted)


@given(st.lists(st.tuples(st.sampled_from(list(KINDS)), bounds), min_size=1, max_size=8), st.randoms())
@example([(kind, [1, NUM_RECORDS - 1]) for kind in KINDS], random.Random(0))
@example([(kind, [3, 20]) for kind in KINDS if kind not in UNMAPPED] * 2, random.Random(0))
@example([("groups", [5, 8]), ("compressed", [0, 9]), ("groups", [8, 33]), ("groups", [7, 7])], random.Random(0))
@pytest.mark.usefixtures("at_once")
def test_slices_of_all_kinds_are_one_sequence_whoever_reads(
    files: dict[str, tuple[str, list[bytes]]], parts: list[tuple[str, list[int]]], rng: random.Random
) -> None:
    slices = [FileSlice(files[kind][0], *within) for kind, within in parts]
    expected = [record for kind, (start, stop) in parts for record in files[kind][1][start:stop]]
    places = [(files[kind][0], position) for kind, within in parts for position in range(*within)]
    if not expected:
        with pytest.raises(ArsrcValueError, match="the files hold no records"):
            open_data_set(*slices)
        return
    data_set = open_data_set(*slices)
    try:
        assert data_set.sizes.tolist() == [stop - start for _, (start, stop) in parts]
        every = range(len(expected))
        ids = [*rng.sample(every, len(expected)), *rng.choices(every, k=9)]
        assert records_of(data_set, ids) == [expected[i] for i in ids]
        assert records_of(data_set, []) == []
        assert [data_set.where(i) for i in ids] == [places[i] for i in ids]
        with pytest.raises(ArsrcIndexError, match=f"got record_id={len(expected)}"):
            data_set.read(np.array([0, len(expected)]))
        is_mapped = all(kind not in UNMAPPED for kind, (start, stop) in parts if start < stop)
        can_map = os.path.exists("/proc/self/maps")
        assert data_set.is_grouped == any(GROUPS.get(kind, 1) > 1 for kind, (start, stop) in parts if start < stop)
        assert data_set.is_quick == (can_map and not data_set.is_grouped)
        located = data_set.locate(np.array(ids))
        assert (located is not None) == (is_mapped and can_map)
        if located is not None:
            assert data_set.read(np.array(ids)).num_decoded == len(ids)
            batch = data_set.copy(located.part(2, 7))
            assert [batch[row] for row in range(len(batch))] == [expected[i] for i in ids[2:7]]
    finally:
        data_set.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, write_records: WriteRecords) -> tuple[list[str], list[bytes]]:
    """More files than are opened at once, of several kinds, and their records."""
    folder = tmp_path_factory.mktemp("many")
    kinds = ["uniform", "spans", "groups"]
    content = [some_records(number, KINDS[kinds[number % 3]][1][:5]) for number in range(100)]
    paths = [write_records(folder / f"{i:03d}", rows, KINDS[kinds[i % 3]][0]) for i, rows in enumerate(content)]
    return paths, list(itertools.chain.from_iterable(content))


def num_open(data_set: DataSet) -> int:
    return len(data_set.files.opened.files)


def test_of_many_files_with_counts_each_is_opened_when_it_is_first_read(many: tuple[list[str], list[bytes]]) -> None:
    paths, records = many
    data_set = open_data_set(*(FileSlice(path, 0, 5) for path in paths))
    assert (data_set.num_records, num_open(data_set)) == (500, 0)
    assert records_of(data_set, [250]) == records[250:251]
    assert num_open(data_set) == 1
    located, early = data_set.locate(np.array([251, 252])), [251, 252]
    counts = []
    for number in range(0, 100, 10):
        assert records_of(data_set, [5 * number + 2]) == [records[5 * number + 2]]
        counts.append(num_open(data_set))
    assert counts[:5] == [3, 7, 15, 31, 63], "tables are built a few times only"
    if located is not None:  # what was located before is still where it was
        batch = data_set.copy(located)
        assert [batch[row] for row in range(2)] == [records[i] for i in early]
    assert records_of(data_set, range(500)) == records
    data_set.close()
    whole = open_data_set(*(FileSlice(path) for path in paths))
    assert num_open(whole) == 100
    assert whole.content_hash() == data_set.content_hash()
    whole.close()


def test_threads_may_read_while_files_are_opened(many: tuple[list[str], list[bytes]]) -> None:
    paths, records = many
    for seed in range(5):
        data_set = open_data_set(*(FileSlice(path, 0, 5) for path in paths))

        def read(number: int, seed: int = seed, data_set: DataSet = data_set) -> None:
            ids = random.Random(f"{seed} {number}").choices(range(500), k=40)
            assert records_of(data_set, ids) == [records[i] for i in ids]

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(read, range(12)))
        data_set.close()


def test_a_count_that_is_wrong_is_found_when_its_file_is_first_read(many: tuple[list[str], list[bytes]]) -> None:
    paths, records = many
    data_set = open_data_set(*(FileSlice(path, 0, 5) for path in paths[:-1]), FileSlice(paths[-1], 0, 6))
    assert records_of(data_set, [0, 1]) == records[:2]
    for _ in range(2):
        with pytest.raises(ArsrcValueError, match="a slice lies beyond the end of its file, which has 5 records"):
            data_set.read(np.array([500]))
    assert records_of(data_set, range(200)) == records[:200]
    data_set.close()
    with pytest.raises(ArsrcReadError, match="the files were closed"):
        data_set.read(np.array([400]))


def test_a_damaged_file_does_no_harm_to_those_that_are_opened_with_it(
    many: tuple[list[str], list[bytes]], tmp_path: Path
) -> None:
    paths, records = many
    damaged = tmp_path / "damaged"
    damaged.write_bytes(Path(paths[2]).read_bytes()[:-1])
    slices = [FileSlice(os.fspath(damaged) if number == 2 else path, 0, 5) for number, path in enumerate(paths)]
    data_set = open_data_set(*slices)
    for number in (0, 5, 7, 9, 30, 99):
        assert records_of(data_set, [5 * number]) == [records[5 * number]]
    for _ in range(2):
        with pytest.raises(ArsrcReadError, match=f"no complete ArrayRecord file.*{damaged}"):
            data_set.read(np.array([10]))
    data_set.close()


def test_a_file_that_is_written_to_before_it_is_first_read_is_an_error(
    many: tuple[list[str], list[bytes]], tmp_path: Path, write_records: WriteRecords
) -> None:
    paths, records = many
    last = write_records(tmp_path / "last", records[:5])
    data_set = open_data_set(*(FileSlice(path, 0, 5) for path in paths), FileSlice(last, 0, 5))
    assert records_of(data_set, [0]) == records[:1]
    write_records(last, records[5:15])
    with pytest.raises(ArsrcReadError, match=rf"a file was changed.*{last}"):
        data_set.read(np.array([501]))
    data_set.close()


@pytest.mark.parametrize("slices", [[(0, 5), (10, 17)], [(10, 17), (0, 5)], [(0, 12), (6, 40)], [(3, 9), (3, 9)]])
@pytest.mark.parametrize("kind", KINDS)
def test_two_slices_of_one_file_are_two_slices(
    files: dict[str, tuple[str, list[bytes]]], kind: str, slices: list[tuple[int, int]]
) -> None:
    path, records = files[kind]
    data_set = open_data_set(*(FileSlice(path, *within) for within in slices))
    positions = [position for within in slices for position in range(*within)]
    assert records_of(data_set, range(len(positions))) == [records[position] for position in positions]
    assert [data_set.where(i) for i in range(len(positions))] == [(path, position) for position in positions]
    data_set.close()


@only_linux
@given(
    st.lists(st.tuples(st.sampled_from(sorted(UNMAPPED)), bounds), min_size=1, max_size=4),
    st.lists(st.integers(0, 999), max_size=30),
)
def test_what_is_decoded_for_a_read_are_the_whole_groups_of_each_slice(
    files: dict[str, tuple[str, list[bytes]]], parts: list[tuple[str, list[int]]], ids: list[int]
) -> None:
    parts = [(kind, within) for kind, within in parts if within[0] < within[1]]
    if not any(GROUPS[kind] > 1 for kind, _ in parts):
        return
    data_set = open_data_set(*(FileSlice(files[kind][0], *within) for kind, within in parts))
    places = [(number, pos) for number, (_, within) in enumerate(parts) for pos in range(*within)]
    ids = [i % len(places) for i in ids]
    groups = {(number, pos // GROUPS[parts[number][0]]) for number, pos in (places[i] for i in ids)}
    sizes = [GROUPS[parts[number][0]] for number, _ in groups]
    whole = [min(size, NUM_RECORDS - group * size) for (_, group), size in zip(groups, sizes, strict=True)]
    lone = sum(GROUPS[parts[number][0]] == 1 for number, _ in (places[i] for i in ids))
    whole = [size for size, (number, _) in zip(whole, groups, strict=True) if GROUPS[parts[number][0]] > 1]
    for num_decoded in (sum(whole), 0):  # once: they are kept
        records, decoded = data_set.read(np.array(ids, np.int64))
        assert len(records) == len(ids)
        assert decoded == lone + num_decoded
    data_set.close()


def test_checksums_mean_that_nothing_is_mapped(files: dict[str, tuple[str, list[bytes]]]) -> None:
    path, records = files["uniform"]
    data_set = open_data_set(FileSlice(path), checksum="always")
    assert not data_set.is_quick
    assert data_set.locate(np.array([0])) is None
    assert records_of(data_set, [5, 0]) == [records[5], records[0]]
    data_set.close()


# Files that change.


@pytest.mark.parametrize("kind", ["uniform", "compressed"])
def test_a_data_set_is_current_until_a_file_of_it_is_another(
    tmp_path: Path, write_records: WriteRecords, kind: str
) -> None:
    options = KINDS[kind][0]
    paths = [write_records(tmp_path / f"{number}", [b"abc"] * 5, options) for number in range(3)]
    change: dict[str, Callable[[str], object]] = {
        "touched": lambda path: os.utime(path, ns=(0, 12_345)),
        "replaced by an equal file": lambda path: os.replace(
            write_records(tmp_path / "new", [b"abc"] * 5, options), path
        ),
        "rewritten": lambda path: write_records(path, [b"abcd"] * 5, options),
        "removed": os.remove,
    }
    for what, change_it in change.items():
        data_set = open_data_set(*map(FileSlice, paths))
        assert data_set.is_current(), what
        change_it(paths[1])
        assert not data_set.is_current(), what
        data_set.close()


# Closing.


def open_now(path: str) -> list[str]:
    """Maps of a file and descriptors that lead to it."""
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if path in line]
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return maps + [link for link in links if link == path]


@only_linux
@pytest.mark.parametrize("kind", KINDS)
def test_closing_lets_go_of_files_at_once_and_later_reads_fail(
    files: dict[str, tuple[str, list[bytes]]], kind: str
) -> None:
    path, records = files[kind]
    data_set = open_data_set(FileSlice(path))
    assert records_of(data_set, [3]) == [records[3]]
    located = data_set.locate(np.array([3]))
    assert open_now(path)
    data_set.close()
    assert not open_now(path)
    data_set.close()
    with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: the files were closed\. Read before close"):
        data_set.read(np.array([3]))
    if located is not None:
        with pytest.raises(ArsrcReadError, match="the files were closed"):
            data_set.copy(located)
    assert not open_now(path)


@only_linux
@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_that_nobody_uses_any_more_lets_go_of_its_files(
    files: dict[str, tuple[str, list[bytes]]], kind: str
) -> None:
    path, records = files[kind]
    data_set = open_data_set(FileSlice(path))
    batch = data_set.read(np.array([3])).records
    assert open_now(path)
    del data_set
    assert not open_now(path)
    assert batch[0] == records[3]


@only_linux
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNMAPPED])
def test_a_read_that_is_under_way_ends_well_when_the_files_are_closed(
    files: dict[str, tuple[str, list[bytes]]], kind: str
) -> None:
    path, records = files[kind]
    maps_while_reading = []

    class ClosesBetween(Copier):
        """Divides even small copies in two, and closes the files before the second half."""

        def num_parts(self, num_bytes: int) -> int:
            return 2

        def run(self, work: Callable[[int, int], None], bounds: list[int]) -> None:
            (first, second) = itertools.pairwise(bounds)
            work(*first)
            mapped.files.reads.close()
            maps_while_reading.append(len(open_now(path)))
            work(*second)

    mapped = opened(path, copier=ClosesBetween())
    ids = np.arange(NUM_RECORDS)[::-1]
    batch = mapped.read(ids)
    assert [batch[row] for row in range(NUM_RECORDS)] == records[::-1]
    assert maps_while_reading == [2]  # the map and its descriptor
    assert not open_now(path)
    with pytest.raises(ArsrcReadError, match="the files were closed"):
        mapped.read(ids)


@only_linux
def test_a_reader_that_is_let_go_of_can_still_be_read_from(files: dict[str, tuple[str, list[bytes]]]) -> None:
    path, records = files["compressed"]
    stamp = FileStamp.at(path)
    assert stamp is not None
    readers = ReaderPool(4)
    reader = readers.reader(path, stamp)
    assert readers.reader(path, stamp) is reader
    readers.close()
    assert reader.reader.read([7, 3]) == [records[7], records[3]]
    assert open_now(path)
    del reader
    assert not open_now(path)
    assert readers.read(path, [5], stamp) == [records[5]]  # of a read that is under way; opened for it alone
    assert not open_now(path)
