"""By which codec records are read, guessed from what some of them are, and what is to be known of the guess."""

from collections.abc import Sequence
from typing import NamedTuple

from arsrc.amounts import counted
from arsrc.cli import kinds
from arsrc.cli.codec_line import alike, codec_text, decoding, names_left_out, names_of_some
from arsrc.cli.kinds import Kind

_NOUNS = {
    kinds.EXAMPLE: "tf.train.Example", kinds.IMAGE: "image", kinds.NPY: "array of npy", kinds.NPZ: "archive of npz",
    kinds.JSON: "map of JSON", kinds.MSGPACK: "map of MessagePack", kinds.TOKENS: "run of int32 tokens",
}  # fmt: skip
_MASK = 'on_bad_record="mask"'
_NOT_READ = "null, or nested, or of several kinds, or without a name"
_NOT_READ_OF_NPZ = "of several shapes or dtypes, or no numbers"


class Guess(NamedTuple):
    """By which codec records are read.

    Attributes:
        codec: As text; empty where nothing is known of them.
        remarks: What is to be known of it, in lines without marks; nothing where it follows from a schema.
    """

    codec: str
    remarks: list[str]


class Tried(NamedTuple):
    """What came of reading records by the codec.

    Attributes:
        num_tried: How many were read, or looked at for whether they can be.
        num_misfits: How many it does not read.
        why: What is wrong with the first of them; empty if there is none.
        are_all: Whether there are no more of them, so that others were not counted.
    """

    num_tried: int
    num_misfits: int
    why: str
    are_all: bool


class Sizes(NamedTuple):
    """What is known of the lengths of records.

    Attributes:
        num_records: How many records there are.
        num_known: Of how many the length is known.
        most: Bytes of the longest of these.
        are_equal: Whether these are all of one length.
    """

    num_records: int
    num_known: int
    most: int
    are_equal: bool


def guess(found: Sequence[Kind], sizes: Sizes, tried: Tried | None = None) -> Guess:
    """Return the codec of records, guessed from what some of them are.

    Args:
        found: What some records are.
        sizes: What is known of their lengths.
        tried: What came of reading them by the codec; None: that was not done.
    """
    if not found:
        return Guess("", [])
    codec = codec_text(found, sizes.are_equal, sizes.most)
    lines = _remarks(found, sizes.num_records, tried)
    num_known = max(len(found), tried.num_tried if tried else 0) if decoding(found) else sizes.num_known
    if "max_length=" in codec and num_known < sizes.num_records:
        lines.insert(
            1, f"Its lengths are the longest of {num_known:,} records: raise max_length where others are longer."
        )
    return Guess(codec, lines)


def _remarks(found: Sequence[Kind], num_records: int, tried: Tried | None) -> list[str]:
    """Return what is to be known of the codec of records, in lines; the arguments are as for `guess`."""
    reads = f", and {_of_all(decoding(found), num_records, tried)}" if tried and not tried.num_misfits else ""
    lines = [f"The codec is guessed from {len(found):,} of {counted(num_records, 'record')}{reads}."]
    num_found, found = len(found), alike(found)
    name = found[0].name
    if tried and tried.num_misfits:
        num = f"{'' if tried.are_all else 'at least '}{tried.num_misfits:,}"
        whom = "them" if tried.num_tried == num_records else f"the {tried.num_tried:,} that were tried"
        lines.append(f"It does not read {num} of {whom} ({tried.why}): {_MASK}.")
    elif tried is None and name in _NOUNS and (num_bad := num_found - len(found)):
        is_none = "is no" if num_bad == 1 else "are no"
        lines.append(f"{num_bad} of {num_found} records that were looked at {is_none} {_NOUNS[name]}: {_MASK}.")
    if name not in (kinds.TEXT, kinds.TOKENS, kinds.BYTES) and not decoding(found):
        lines.append(f"It gives the bytes of each record, which is {name}: a function of yours decodes them by Map.")
    if name == kinds.PICKLE:
        lines.append("It may be pickle.loads, which runs code from the file: trust whoever wrote it.")
    if missing := names_of_some(found):
        what = "left out" if name == kinds.NPZ else "to be named with a default"
        lines.append(f"Not in all of them, so {what}: {_listed(missing)}.")
    if left_out := names_left_out(found):
        lines.append(f"Left out, as {_NOT_READ_OF_NPZ if name == kinds.NPZ else _NOT_READ}: {_listed(left_out)}.")
    return lines


def _of_all(codec: str, num_records: int, tried: Tried) -> str:
    of_them = "all of them" if tried.num_tried == num_records else f"all of the {tried.num_tried:,} that were tried"
    return f"fits {of_them}, as far as heads of pictures tell" if "Image(" in codec else f"reads {of_them}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or '""' for name in names)
