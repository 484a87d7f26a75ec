"""Which records a split expression means, as TFDS reads it: names, percent, numbers, shards, sums, even splits."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
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
        count: How many parts there are.
        drop_remainder: Whether records are left over where they cannot be shared out evenly.

    Raises:
        ArsrcTypeError: `split` is no split, or a number no integer (at construction).
        ArsrcValueError: There is no such part (at construction).
    """

    split: "Split"
    index: int
    count: int
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        _check(self.split)
        count = whole_number("EvenSplit.count", "count", self.count, 1)
        whole_number("EvenSplit.index", "index", self.index, 0, count - 1)


Split: TypeAlias = str | EvenSplit


class Range(NamedTuple):
    """Records `[start, stop)` of a split of the data set."""

    name: str
    start: int
    stop: int


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
        ArsrcValueError: `n` is less than 1.
    """
    count = whole_number("even_splits", "n", n, 1)
    return [EvenSplit(split, index, count, bool(drop_remainder)) for index in range(count)]


def resolve(split: Split, shards: Mapping[str, Sequence[int]]) -> list[Range]:
    """Return which records a split means, in order.

    Args:
        split: The split.
        shards: Records of each shard, by the names of the splits that there are.

    Raises:
        ArsrcTypeError: It is no split.
        ArsrcValueError: It is no split expression, names a split that is not there, or lies outside of one.
    """
    _check(split)
    if isinstance(split, EvenSplit):
        return [_part(split, whole) for whole in resolve(split.split, shards)]
    return [piece for term in _SUM.split(split) for piece in _term(term, split, shards)]


def _check(split: object) -> None:
    if not isinstance(split, (str, EvenSplit)):
        raise ArsrcTypeError("split", "must be a split expression or a part that even_splits made", _FORM, split=split)


def _part(part: EvenSplit, whole: Range) -> Range:
    share, left_over = divmod(whole.stop - whole.start, part.count)
    extra = 0 if part.drop_remainder else left_over
    start, stop = (index * share + min(index, extra) for index in (part.index, part.index + 1))
    return Range(whole.name, whole.start + start, whole.start + stop)


def _term(term: str, split: str, shards: Mapping[str, Sequence[int]]) -> list[Range]:
    match = _PART.fullmatch(term)
    if match is None or (match["name"] == "all" and match["slice"]):
        what = "all splits together cannot be sliced" if match else "is no split expression"
        raise ArsrcValueError("split", what, _FORM, split=split)
    if match["name"] == "all":
        return [Range(name, 0, sum(lengths)) for name, lengths in shards.items()]
    if match["name"] not in shards:
        there = ", ".join(map(repr, shards)) or "none"
        raise ArsrcValueError("split", f"there is no split {match['name']!r}", f"There is {there}.", split=split)
    start, stop = _records(match["slice"], split, shards[match["name"]])
    if stop < start:
        raise ArsrcValueError("split", "a slice ends before it starts", _FORM, split=split)
    return [Range(match["name"], start, stop)]


def _records(text: str | None, split: str, lengths: Sequence[int]) -> tuple[int, int]:
    """Return at which records a slice starts and stops."""
    num_records = sum(lengths)
    if text is None:
        return 0, num_records
    unit, start, stop = _slice(text, split)
    if unit == "shard":
        first, last, _ = slice(start, stop).indices(len(lengths))
        return sum(lengths[:first]), sum(lengths[:last])
    most = 100 if unit == "%" else num_records
    ends = [0 if start is None else start, most if stop is None else stop]
    if max(map(abs, ends)) > most:
        what = f"a slice lies outside of its split, which has {num_records} records"
        raise ArsrcValueError("split", what, "Choose a smaller slice.", split=split)
    # As TFDS does it: rounded before they are counted from the end, and halves to even numbers.
    first, last = (round(end * num_records / 100.0) if unit == "%" else end for end in ends)
    return first + num_records * (first < 0), last + num_records * (last < 0)


def _slice(text: str, split: str) -> tuple[str, Any, Any]:
    """Return unit and ends of a slice, None for an end that is left out; a unit at one end holds for both."""
    matches = [_BOUND.fullmatch(bound) for bound in text.split(":")]
    found = [match for match in matches if match is not None and text != ":"]
    units = {match["unit"] for match in found if match["unit"]}
    is_one_shard = len(matches) == 1 and units == {"shard"}
    if len(found) < len(matches) or len(units) > 1 or not (len(matches) == 2 or is_one_shard):
        raise ArsrcValueError("split", "is no split expression", _FORM, split=split)
    number = float if units == {"%"} else int
    try:
        ends: list[Any] = [None if match["number"] is None else number(match["number"]) for match in found]
    except ValueError:
        raise ArsrcValueError("split", "holds a number that is none", _FORM, split=split) from None
    return "".join(units), ends[0], (ends[0] + 1 or None if is_one_shard else ends[1])
