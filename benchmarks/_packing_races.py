"""The races of packing and mixing, and the figures that arsrc is to reach in them."""

import functools
import pathlib
from collections.abc import Mapping, Sequence

import _packing_floors as floors
import _packing_ours as ours
import _packing_peers as peers
import numpy as np
from _arsrc import BATCH as RECORDS
from _cases import Case
from _data import DataSet
from _harness import Contestant, Outcome, Race
from _packing_data import ROW, Documents, Rows
from _packing_step import BATCH
from _ratios import Ratios, rates

_FILES = 20
_WEIGHTS = {2: (0.7, 0.3), 20: tuple(range(1, 21))}
_MILLION = 1e6

HOW = f"""\
A rate is tokens per second in the steady state, padding not counted, or records where it says so. How contestants
take turns is said in throughput.md: the same harness measures them. A ratio is the median of those of the rounds.

* Each token says of which document it is and where it stood there. Before a contestant is measured, rows that it
  delivers are checked token by token: pieces have no holes, are numbered, begin and end where documents do, and no
  token is there twice; of arsrc's "split" and "fit" this is a whole epoch, in which no token may be missing.
* Rows have {ROW:,} tokens, batches {BATCH} rows of tokens, segment ids and positions, `int32`, shuffled.
* Grain reads without threads: with 2 or 16 of them it is 4 times slower here, in workers too. It packs documents in
  an order that is new in each epoch; arsrc packs once, and shuffles rows. `FirstFitPackIterDataset` has as many
  bins as a batch has rows. "By hand", each worker reads 256 documents a call by array_record's own data source.
* "Rows in memory" are arrays of the same rows that were packed before, gathered by numbers that are given, by the
  callback that arsrc uses. "NumPy alone" writes to the same 786 kB again and again, which stay in the CPU's caches.
* "Offline rows" are what people write before they train: tokens end to end in one file. Segment ids and positions
  would have to be written too, or made from the tokens. Another row length, other documents, or another order of
  them takes all of "packing" again, and the bytes of all tokens on the disk; with arsrc, another table.
* Making tables is the time of `arsrc.init` of a packed config less that of one that is not.
* Mixtures have weights of 0.7 and 0.3, or in proportion to 1, 2, ..., 20; one source is all files. Grain cannot
  mix packed documents by `MapDataset.mix`: packed sources are mixed by `IterDataset.mix`.
"""


def races(folder: pathlib.Path, quick: bool) -> list[Race]:
    """Return all races; the quick ones have small files and one short round."""
    data = Documents(folder, 4_000 if quick else 200_000, _FILES)
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


def _others(data: Documents, how: str, rows: "functools._lru_cache_wrapper[Rows]") -> list[Contestant]:
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


def _tables_made(how: str) -> Ratios:
    """Return millions of documents a second that tables are made of: opening packed, less opening, in the medians."""

    def found(outcomes: Mapping[str, Outcome]) -> list[float]:
        packed, plain = (outcomes[f"arsrc, open, {name}"].median for name in (how, "not packed"))
        if not 0 < packed < plain:  # less than the noise
            return []
        return [1 / (1 / packed - 1 / plain) / _MILLION]

    return found


def cases(folder: pathlib.Path, quick: bool) -> list[Case]:
    """Return all figures."""
    (data,) = races(folder, quick)[0].data

    def fill(outcomes: Mapping[str, Outcome]) -> list[float]:
        is_there = outcomes["arsrc, open, fit"].median and isinstance(data, Documents)
        return [ours.fill(data, "fit")] if is_there else []

    found = []
    for how, of in (("split", "ConcatThenSplitIterDataset"), ("fit", "FirstFitPackIterDataset")):
        packed = functools.partial(rates, f"arsrc, {how}")
        gather = "a gather of rows from three arrays in memory"
        found += [
            Case(
                f"{how}-grain",
                how,
                f'tokens packed by "{how}", over Grain\'s {of}, its fastest',
                packed(over="Grain"),
                30,
            ),
            Case(
                f"{how}-memory",
                how,
                f"the same, over {gather}, in the same scan",
                packed(over="rows in memory, s"),
                0.4,
            ),
            Case(f"{how}-numpy", how, f"the same, over {gather}, NumPy alone", packed(over="rows in memory, N")),
        ]
    offline = "the same, over a gather from a map of rows of tokens alone, written before, feeding a jitted step"
    found += [
        Case("split-offline", "split", offline, rates("arsrc, split", over="offline")),
        Case(
            "table-split",
            "tables",
            'million documents a second that a table of "split" is made of',
            _tables_made("split"),
            2,
        ),
        Case("table-fit", "tables", 'the same, of "fit"', _tables_made("fit"), 0.2),
        Case("fill-fit", "tables", 'part of all rows of "fit" that is tokens', fill, 0.97),
    ]
    for race, of, grain in (
        ("mixed", 'sources packed by "fit"', "Grain's IterDataset.mix"),
        ("mixed-records", "sources of records of 784 B", "Grain's MapDataset.mix"),
    ):
        for count, least in ((2, 0.9), (20, 0.8)):
            ratio = functools.partial(rates, f"arsrc, mixture of {count},")
            what = f"a mixture of {count} {of}"
            found += [
                Case(f"{race}-{count}", race, f"{what}, over one source of the same", ratio(over="arsrc, one"), least),
                Case(f"{race}-g-{count}", race, f"the same, over {grain}", ratio(over=_of_grain(race, count))),
            ]
    return found


def _of_grain(race: str, count: int) -> str:
    return f"Grain {'IterDataset' if race == 'mixed' else 'MapDataset'}.mix of {count}" + (
        " " if race == "mixed" else ","
    )
