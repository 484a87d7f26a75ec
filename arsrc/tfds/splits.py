"""Which records a split expression means, as TFDS reads it: names, percent, numbers, shards, sums, even splits."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from arsrc.codecs.check import whole_number
from arsrc.errors import ArsrcTypeError, ArsrcValueError

_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<slice>[\w%:.-]+)\])?")
_BOUND = re.compile(r"((?P<number>-?[\d_.]+)(?P<unit>%|shard)?)?")
_SUM = re.compile(r"\s*\+\s*")
_FORM = 'Write for example "train", "train[:90%]", "train[1000:2000]", "train[-10%:]+test" or "all".'


@dataclasses.dataclass(frozen=True)
class EvenSplit:
    """One of the parts that `even_splits` makes.

    Attributes:
        split: What is split.
        index: Which part it is, from 0.
        num_parts: How many parts there are.
        drop_remainder: Whether records are left over where they cannot be shared out evenly.

    Raises:
        ArsrcTypeError: `split` is no split, or a number no integer (at construction).
        ArsrcValueError: `split` is no split expression, or there is no such part (at construction).
    """

    split: "Split"
    index: int
    num_parts: int
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        _check(self.split)
        num_parts = whole_number("EvenSplit.num_parts", "num_parts", self.num_parts, 1)
        whole_number("EvenSplit.index", "index", self.index, 0, num_parts - 1)


Split: TypeAlias = str | EvenSplit


class Range(NamedTuple):
    """Records `[start, stop)` of a split of the data set."""

    name: str
    start: int
    stop: int


class _Term(NamedTuple):
    """One term of a split expression.

    Attributes:
        name: Of a split.
        unit: In which the ends of the slice are: "%", "shard", or records.
        start: Where it starts, from the end where it is negative; None where that is left out.
        stop: Where it stops, likewise.
    """

    name: str
    unit: str = ""
    start: Any = None
    stop: Any = None


def even_splits(split: Split, n: int, *, drop_remainder: bool = False) -> list[EvenSplit]:
    """Return `n` parts of a split, of as many records each as can be.

    Each term of a sum is divided by itself, as TFDS does it, and the first parts get one record more where it cannot be
    shared out evenly.

    Args:
        split: A split expression, or one of the parts of another one.
        n: How many parts.
        drop_remainder: Leave records over instead, so that all parts have one size.

    Returns:
        What `source` takes for `split`.

    Raises:
        ArsrcTypeError: `n` is no integer, or `split` is no split.
        ArsrcValueError: `n` is less than 1, or `split` is no split expression.
    """
    num_parts = whole_number("even_splits", "n", n, 1)
    return [EvenSplit(split, index, num_parts, bool(drop_remainder)) for index in range(num_parts)]


def resolve(split: Split, shards: Mapping[str, Sequence[int]]) -> list[Range]:
    """Return which records a split means, in order.

    Args:
        split: The split.
        shards: Records of each shard, by the names of the splits that there are.

    Raises:
        ArsrcTypeError: It is no split.
        ArsrcValueError: It is no split expression, names a split that is not there, or lies outside of one.
    """
    there = f"There is {', '.join(map(repr, shards)) or 'none'}."
    _check(split, there)
    if isinstance(split, EvenSplit):
        return [_part(split, whole) for whole in resolve(split.split, shards)]
    found = []
    for term in _terms(split, there):
        if term.name == "all":
            found += [Range(name, 0, sum(lengths)) for name, lengths in shards.items()]
        elif term.name in shards:
            found.append(Range(term.name, *_records(term, split, shards[term.name])))
        else:
            raise ArsrcValueError("split", f"there is no split {term.name!r}", there, split=split)
    return found


def _check(split: object, there: str = "") -> None:
    """Raise an error unless it is a split, as far as that can be told without those that there are."""
    if isinstance(split, str):
        _terms(split, there)
    elif not isinstance(split, EvenSplit):
        raise ArsrcTypeError("split", "must be a split expression or a part that even_splits made", _FORM, split=split)


def _part(part: EvenSplit, whole: Range) -> Range:
    share, left_over = divmod(whole.stop - whole.start, part.num_parts)
    extra = 0 if part.drop_remainder else left_over
    start, stop = (index * share + min(index, extra) for index in (part.index, part.index + 1))
    return Range(whole.name, whole.start + start, whole.start + stop)


def _terms(split: str, there: str) -> list[_Term]:
    """Return the terms of a split expression; where it is none, the error says which splits are there."""
    fix = f"{_FORM} {there}"

    def refused(what: str) -> ArsrcValueError:
        return ArsrcValueError("split", what, fix, split=split)

    terms = []
    for text in _SUM.split(split):
        match = _PART.fullmatch(text)
        if match is None:
            raise refused("is no split expression")
        if match["name"] == "all" and match["slice"]:
            raise refused("all splits together cannot be sliced")
        terms.append(_Term(match["name"], *_slice(match["slice"], refused)) if match["slice"] else _Term(match["name"]))
    return terms


def _slice(text: str, refused: Callable[[str], ArsrcValueError]) -> tuple[str, Any, Any]:
    """Return unit and ends of a slice, None for an end that is left out; a unit at one end holds for both."""
    matches = [_BOUND.fullmatch(bound) for bound in text.split(":")]
    found = [match for match in matches if match is not None and text != ":"]
    units = {match["unit"] for match in found if match["unit"]}
    is_one_shard = len(matches) == 1 and units == {"shard"}
    if len(found) < len(matches) or len(units) > 1 or not (len(matches) == 2 or is_one_shard):
        raise refused("is no split expression")
    number = float if units == {"%"} else int
    try:
        ends: list[Any] = [None if match["number"] is None else number(match["number"]) for match in found]
    except ValueError:
        raise refused("holds a number that is none") from None
    return "".join(units), ends[0], (ends[0] + 1 or None if is_one_shard else ends[1])


def _records(term: _Term, split: str, lengths: Sequence[int]) -> tuple[int, int]:
    """Return at which records of a split a term starts and stops."""
    num_records = sum(lengths)
    _, unit, start, stop = term
    if unit == "shard":
        first, last, _ = slice(start, stop).indices(len(lengths))
        first, last = sum(lengths[:first]), sum(lengths[:last])
    else:
        most = 100 if unit == "%" else num_records
        ends = [0 if start is None else start, most if stop is None else stop]
        if max(map(abs, ends)) > most:
            what = f"a slice lies outside of its split, which has {num_records} records"
            raise ArsrcValueError("split", what, "Choose a smaller slice.", split=split)
        # As TFDS does it: rounded before they are counted from the end, and halves to even numbers.
        first, last = (round(end * num_records / 100.0) if unit == "%" else end for end in ends)
        first, last = first + num_records * (first < 0), last + num_records * (last < 0)
    if last < first:
        raise ArsrcValueError("split", "a slice ends before it starts", _FORM, split=split)
    return first, last
