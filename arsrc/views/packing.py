"""`Packing`: how documents become rows of tokens."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.frozen import Terse

How = Literal["split", "fit"]
Longer = Literal["cut", "truncate", "drop"]

MAX_LENGTH = 2**24
"""Most tokens of a row."""


@dataclasses.dataclass(frozen=True, repr=False)
class Packing(Terse):
    """Documents packed into rows of one length.

    A row is `{"tokens", "segment_ids", "positions"}`, each `i32[length]`. Its pieces of documents are numbered from 1
    in `segment_ids`, 0 is padding; `positions` count from 0 in each piece. Documents without tokens are in no row.

    Attributes:
        length: Tokens of a row, in `[1, 2**24]`.
        how: "split" puts documents end to end in their order and cuts every `length` tokens: no padding but in the
            last row. "fit" keeps documents whole, in the rows where they fit best among neighbouring documents.
        longer: Documents of more than `length` tokens are "cut" into pieces, "truncate"d to their first tokens, or
            "drop"ped. The end-of-document token counts: a truncated document still ends with it.
        end_of_document: Token behind each document; None puts none there.
        pad_value: Token where a row holds none.
        targets: Adds `"targets"`, at each place the next token of the same document, also where it stands in another
            row; and `"target_segment_ids"`, which are `segment_ids` where there is such a token, else 0.

    Raises:
        ArsrcTypeError: A field has a type that cannot be used (at construction).
        ArsrcValueError: A number is out of range, or a word is none of those above (at construction).
    """

    length: int
    how: How = "split"
    _: dataclasses.KW_ONLY
    longer: Longer = "cut"
    end_of_document: int | None = None
    pad_value: int = 0
    targets: bool = False

    def __post_init__(self) -> None:
        put = lambda field, value: object.__setattr__(self, field, value)  # noqa: E731
        put("length", _whole("length", self.length, 1, MAX_LENGTH))
        _one_of("how", self.how, get_args(How))
        _one_of("longer", self.longer, get_args(Longer))
        if self.end_of_document is not None:
            put("end_of_document", _whole("end_of_document", self.end_of_document, -(2**31), 2**31 - 1))
        put("pad_value", _whole("pad_value", self.pad_value, -(2**31), 2**31 - 1))
        if not isinstance(self.targets, (bool, np.bool_)):
            raise ArsrcTypeError("Packing.targets", "must be True or False", targets=self.targets)
        put("targets", bool(self.targets))


def num_ends(packing: Packing) -> int:
    """Return how many end-of-document tokens a document has: one or none."""
    return int(packing.end_of_document is not None)


def packed_lengths(packing: Packing, lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many tokens of each document get into rows, its end-of-document token among them.

    Raises:
        ArsrcValueError: A length is not in `[0, 2**32 - 2]`.
    """
    found = np.asarray(lengths).astype(np.int64)  # i64[num_documents]
    wrong = (found < 0) | (found > 2**32 - 2)
    if np.count_nonzero(wrong):
        document = int(wrong.argmax())
        what = "a document has a length that cannot be packed"
        raise ArsrcValueError("lengths", what, document=document, num_tokens=int(found[document]))
    found[found > 0] += num_ends(packing)
    if packing.longer == "truncate":
        np.minimum(found, packing.length, out=found)
    if packing.longer == "drop":
        found[found > packing.length] = 0
    return found


def _whole(field: str, value: Any, least: int, most: int) -> int:
    """Return `value` as an int in `[least, most]`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArsrcTypeError(f"Packing.{field}", "must be an integer", **{field: value}) from None
    if not least <= number <= most:
        raise ArsrcValueError(f"Packing.{field}", f"must be in [{least}, {most}]", **{field: value})
    return number


def _one_of(field: str, value: Any, allowed: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ArsrcValueError(f"Packing.{field}", f"must be one of {choices}", **{field: value})
