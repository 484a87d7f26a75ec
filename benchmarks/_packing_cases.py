"""The cases of packing and mixing: figures that arsrc is to reach, and against whom."""

import functools
from collections.abc import Mapping

import _packing_ours as ours
from _cases import Case
from _harness import Outcome
from _packing_data import Documents
from _ratios import Ratios, rates

_MILLION = 1e6
_OWN = ("in process", "2 processes")
_GATHER = "the same, over a gather of rows from three arrays in memory"


def cases(data: Documents) -> list[Case]:
    """Return all figures."""
    return [
        *_packed("split", "ConcatThenSplitIterDataset"),
        Case(
            "split-offline",
            "split",
            "the same, over a gather from a map of rows of tokens alone, written before, feeding a jitted step",
            rates("arsrc, split", over="offline"),
        ),
        *_packed("fit", "FirstFitPackIterDataset"),
        Case(
            "table-split",
            "tables",
            'million documents a second that a table of "split" is made of',
            _tables_made("split"),
            at_least=2,
        ),
        Case("table-fit", "tables", 'the same, of "fit"', _tables_made("fit"), at_least=0.2),
        Case("fill-fit", "tables", 'part of all rows of "fit" that is tokens', _fill(data), at_least=0.97),
        *_mixed("mixed", 'sources packed by "fit"', "IterDataset.mix"),
        *_mixed("mixed-records", "sources of records of 784 B", "MapDataset.mix"),
    ]


def _packed(how: str, peer: str) -> list[Case]:
    ratio = functools.partial(rates, f"arsrc, {how}")
    own = tuple(f"Grain {peer}, {way}" for way in _OWN)
    return [
        Case(
            f"{how}-grain",
            how,
            f'tokens packed by "{how}", over Grain\'s {peer}, its fastest',
            ratio(over=f"Grain {peer}"),
            at_least=30,
        ),
        Case(f"{how}-grain-own", how, "the same, over its own reading", ratio(over=own)),
        Case(f"{how}-memory", how, f"{_GATHER}, in the same scan", ratio(over="rows in memory, scan"), at_least=0.4),
        Case(f"{how}-numpy", how, f"{_GATHER}, NumPy alone", ratio(over="rows in memory, NumPy")),
    ]


def _mixed(race: str, sources: str, peer: str) -> list[Case]:
    found = []
    for count, least in ((2, 0.9), (20, 0.8)):
        ratio = functools.partial(rates, f"arsrc, mixture of {count},")
        what = f"a mixture of {count} {sources}"
        grain = tuple(f"Grain {peer} of {count}{end}" for end in " ,")
        found += [
            Case(f"{race}-{count}", race, f"{what}, over one source of the same", ratio(over="arsrc, one"), least),
            Case(f"{race}-{count}-grain", race, f"the same, over Grain's {peer}, its fastest", ratio(over=grain)),
        ]
    return found


def _tables_made(how: str) -> Ratios:
    """Return millions of documents a second that tables are made of: opening packed, less opening, in the medians."""

    def found(outcomes: Mapping[str, Outcome]) -> list[float]:
        packed, plain = (outcomes[f"arsrc, open, {name}"].median for name in (how, "not packed"))
        if not 0 < packed < plain:  # less than the noise
            return []
        return [1 / (1 / packed - 1 / plain) / _MILLION]

    return found


def _fill(data: Documents) -> Ratios:
    def found(outcomes: Mapping[str, Outcome]) -> list[float]:
        return [ours.fill(data, "fit")] if outcomes["arsrc, open, fit"].median else []

    return found
