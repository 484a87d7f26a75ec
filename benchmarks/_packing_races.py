"""The races of packing and mixing: which contestants run on which files."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import _packing_floors as floors
import _packing_ours as ours
import _packing_peers as peers
import numpy as np
from _arsrc import BATCH as RECORDS
from _data import DataSet
from _harness import Contestant, Race
from _packing_data import ROW, Documents, Rows
from _packing_step import BATCH

_FILES = 20
_WEIGHTS = {2: (0.7, 0.3), 20: tuple(range(1, 21))}

HOW = f"""\
A rate is tokens per second in the steady state, padding not counted, or records where it says so. How contestants
take turns is said in throughput.md: the same harness measures them. A ratio is the median of those of the rounds.

* Each token says of which document it is and where it stood there. Before a contestant is measured, rows that it
  delivers are checked token by token: pieces have no holes, are numbered, begin and end where documents do, and no
  token is there twice; of arsrc's "split" and "fit" this is a whole epoch, in which no token may be missing.
* Rows have {ROW:,} tokens, batches {BATCH} rows of tokens, segment ids and positions, `int32`, shuffled.
* Grain reads without threads: with 2 or 16 of them it is 4 times slower here, in workers too. It packs documents in
  an order that is new in each epoch; arsrc packs once, and shuffles rows. `FirstFitPackIterDataset` has as many
  bins as a batch has rows. "By hand", its workers read 256 documents a call by array_record's own data source, which
  no option of Grain does; "its fastest" counts that too, "its own reading" does not.
* "Rows in memory" are arrays of the same rows that were packed before, gathered by numbers that are given, by the
  callback that arsrc uses. "NumPy alone" writes to the same 786 kB again and again, which stay in the CPU's caches.
* "Offline rows" are what people write before they train: tokens end to end in one file. Segment ids and positions
  would have to be written too, or made from the tokens. Another row length, other documents, or another order of
  them takes all of "packing" again, and the bytes of all tokens on the disk; with arsrc, another table.
* Making tables is the time of `arsrc.init` of a packed config less that of one that is not.
* Mixtures have weights of 0.7 and 0.3, or in proportion to 1, 2, ..., 20; one source is all files. Grain cannot
  mix packed documents by `MapDataset.mix`: packed sources are mixed by `IterDataset.mix`.
"""


def documents(folder: pathlib.Path, quick: bool) -> Documents:
    """Return the documents of all races."""
    return Documents(folder, 8_000 if quick else 200_000, _FILES)


def races(folder: pathlib.Path, quick: bool) -> list[Race]:
    """Return all races; the quick ones have small files and one short round."""
    data = documents(folder, quick)
    records = DataSet(folder, 20_000 if quick else 262_144, 784, _FILES)
    rounds, seconds = (1, 0.02) if quick else (5, 1.0)
    tokens = functools.partial(
        Race, rounds=rounds, seconds=seconds, unit=(BATCH * ROW, "a full batch"), counted="token"
    )
    opening = functools.partial(Race, unit=(data.num_documents, "an opening"), counted="document")
    return [
        tokens("split", "Documents end to end, cut into rows: how fast?", [data], lambda: _split(data)),
        tokens("fit", "And documents kept whole?", [data], lambda: _fit(data)),
        opening(
            "tables",
            "What has to be done before?",
            [data],
            lambda: [*(ours.opening(data, how) for how in (None, "split", "fit")), floors.packing_offline(data)],
            rounds=rounds,
            seconds=seconds / 2,
        ),
        tokens("mixed", "What do mixtures of packed sources cost?", [data], lambda: _mixed(data)),
        Race(
            "mixed-records",
            "And of plain records?",
            [records],
            lambda: _mixed_records(records),
            rounds=rounds,
            seconds=seconds,
            unit=(RECORDS, "a batch"),
        ),
    ]


def _split(data: Documents) -> list[Contestant]:
    rows = functools.cache(lambda: floors.split_by_hand(data))
    return [ours.packed(data, "split"), *_others(data, "split", rows), floors.offline(data)]


def _fit(data: Documents) -> list[Contestant]:
    rows = functools.cache(lambda: ours.all_rows(data, "fit"))
    return [ours.packed(data, "fit"), *_others(data, "fit", rows)]


def _others(data: Documents, how: str, rows: Callable[[], Rows]) -> list[Contestant]:
    grain = [peers.packed(data, how, way) for way in (peers.HERE, peers.WORKERS, peers.BY_HAND)]
    return [*grain, floors.in_scan(data, how, rows), floors.numpy_alone(data, rows)]


def _parts(paths: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Return as many groups of files, one behind the other."""
    return [tuple(map(str, part)) for part in np.array_split(paths, count)]


def _mixed(data: Documents) -> list[Contestant]:
    found = [ours.single(data)]
    for count, weights in _WEIGHTS.items():
        parts = _parts(data.paths, count)
        found.append(ours.mixture(data, parts, weights))
        found += [peers.packed(data, "fit", way, parts, weights) for way in (peers.HERE, peers.BY_HAND)]
    return found


def _mixed_records(data: DataSet) -> list[Contestant]:
    found = [ours.records(data, [data.paths], (1,))]
    for count, weights in _WEIGHTS.items():
        parts = _parts(data.paths, count)
        found.append(ours.records(data, parts, weights))
        found += [peers.mixed(data, parts, weights, way) for way in (peers.HERE, peers.WORKERS)]
    return found
