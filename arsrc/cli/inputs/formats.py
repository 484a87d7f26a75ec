"""Which format an input file has: told by its first bytes, for empty ones by its name."""

import re

from arsrc._host.format.file_kinds import SIGNATURE, is_tfrecord, kind_of_file
from arsrc.cli.inputs.blocks import beginning, is_packed, unpacked
from arsrc.errors import ArsrcReadError, ArsrcValueError

ARRAY_RECORD, TFRECORD, PARQUET, NPZ, JSONL, WEBDATASET = FORMATS = (
    "array_record",
    "tfrecord",
    "parquet",
    "npz",
    "jsonl",
    "webdataset",
)  # fmt: skip

_NAMES = {
    "array_record": ARRAY_RECORD, "arrayrecord": ARRAY_RECORD,
    "tfrecord": TFRECORD, "tfrecords": TFRECORD, "tfrec": TFRECORD,
    "parquet": PARQUET, "pq": PARQUET,
    "npz": NPZ,
    "jsonl": JSONL, "ndjson": JSONL, "json": JSONL,
    "tar": WEBDATASET, "tgz": WEBDATASET,
}  # fmt: skip


def format_of(path: str) -> str:
    """Return which of `FORMATS` a file has.

    Raises:
        ArsrcReadError: It cannot be read.
        ArsrcValueError: It seems to have none of them.
    """
    head = beginning(path)
    found = _by_content(head)
    if found is None and is_packed(head):
        try:
            found = _by_content(next(unpacked(path, [head]), b""))
        except ArsrcReadError:  # which may be no compressed file at all
            found = None
    found = found or _by_name(path)
    if found is None:
        kind, fix = kind_of_file(head)
        what = f"a file is of no format that is known here, but {kind}"
        fix = f"{fix} Known are {', '.join(FORMATS)}; if it is one of these, say so by --from."
        raise ArsrcValueError("convert", what, fix, path=path)
    return found


def is_array_record(path: str) -> bool:
    """Whether a file is one of ArrayRecord, or empty.

    Raises:
        ArsrcReadError: It cannot be read.
    """
    head = beginning(path)
    return head.startswith(SIGNATURE[: len(head)])


def _by_content(head: bytes) -> str | None:
    if head and head.startswith(SIGNATURE[: len(head)]):
        return ARRAY_RECORD
    if is_tfrecord(head):
        return TFRECORD
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith(b"PK\x03\x04"):
        return NPZ
    if head.startswith(b"ustar", 257):
        return WEBDATASET
    return JSONL if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[") else None


def _by_name(path: str) -> str | None:
    """Return what the last known ending says, of `a.tfrecord-00000-of-00004` and `a.jsonl.gz` too."""
    endings = re.split(r"[.-]", path.rpartition("/")[2].lower())[1:]
    return next((_NAMES[ending] for ending in reversed(endings) if ending in _NAMES), None)
