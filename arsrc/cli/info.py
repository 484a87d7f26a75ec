"""`arsrc info`: what files hold, and the line of Python that reads them.

With `--json` one object is printed, of these keys: `files`, a list of `{path, num_bytes, num_records}`; `num_records`,
`num_bytes`; `group_sizes` and `compressions`, lists; `writer_options` of the first file; `lengths`, `{min, max, mean,
num_records, are_all, histogram}`, of how many records they are and whether of all, and a list of `{least, most,
num_records}` (null where no record can be read); `first_record`, `{record_id, num_bytes, kind, description}`, and of an
example `features`, a list of `{name, kind, num_values}` (null likewise); `unreadable`, why a record that was looked at
cannot be read, or null; `codec`, as Python code, or null, and `remarks` on it, a list of texts; `tfds_source`, what
reads a split of a data set of TFDS as its own files say, as Python code, or null, and `tfds_splits`, the numbers of
records of the splits that the files are of, by name, or null.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from arsrc.amounts import counted, in_bytes
from arsrc.cli import kinds
from arsrc.cli.arguments import add_json, add_paths
from arsrc.cli.file_facts import FileFacts, Lengths, file_facts, histogram, lengths_of
from arsrc.cli.guess import Guess, Sizes, guess
from arsrc.cli.samples import Samples, samples_of
from arsrc.cli.shown import described, feature_row
from arsrc.cli.tables import write_json, write_line, write_pairs, write_table
from arsrc.cli.tfds_folder import Source, source_of
from arsrc.open_paths import data_set_of

SUMMARY = "say what files hold, and how to read them"

_BAR = 40  # characters of the longest
_BATCH_SIZE = 256


class _Info(NamedTuple):
    """All that is said of files."""

    paths: Sequence[str]
    facts: FileFacts
    lengths: Lengths
    samples: Samples
    guess: Guess
    source: Source | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_paths(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print what the files hold; return 0."""
    info = _info(options.paths)
    if options.json:
        write_json(_as_json(info))
        return 0
    _write_facts(info)
    if len(info.lengths.lengths):
        _write_histogram(info.lengths)
    if info.samples.kinds:
        _write_first(info.samples)
    if info.source:
        _write_source(info.source)
    elif info.guess.codec:
        _write_code(info)
    return 0


def _info(paths: Sequence[str]) -> _Info:
    data_set = data_set_of(paths)
    facts, lengths = file_facts(data_set), lengths_of(data_set)
    samples = samples_of(data_set, facts.group_sizes[-1])
    most = max([int(lengths.lengths.max(initial=0)), *samples.sizes])
    are_equal = lengths.are_equal and min(samples.sizes, default=0) == most
    guessed = guess(samples.kinds, Sizes(lengths.num_records, len(lengths.lengths), most, are_equal))
    first = samples.kinds[0] if samples.kinds else None
    record = first.value if first and first.name == kinds.EXAMPLE else {}
    source = source_of([one.path for one in facts.files], record)
    return _Info(paths, facts, lengths, samples, guessed, source)


def _write_facts(info: _Info) -> None:
    facts, lengths = info.facts, info.lengths
    num_bytes = sum(one.num_bytes for one in facts.files)
    sizes = facts.group_sizes
    pairs = [
        ("files", f"{len(facts.files):,}, {in_bytes(num_bytes)}"),
        ("records", f"{lengths.num_records:,}"),
        ("compression", ", ".join(facts.compressions)),
        ("group size", f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"),
        ("writer options", facts.writer_options + ("" if len(facts.files) == 1 else " (of the first file)")),
    ]
    if info.samples.kinds:
        kind, record_id = info.samples.kinds[0], info.samples.ids[0]
        pairs.append((f"record {record_id}", f"{described(kind)}, {in_bytes(info.samples.sizes[0])}"))
    if info.samples.unreadable:
        pairs.append(("unreadable", f"{info.samples.unreadable} (arsrc verify lists all)"))
    write_pairs(pairs)


def _write_histogram(lengths: Lengths) -> None:
    bins = histogram(lengths.lengths)
    of = "all records" if lengths.are_all else f"{len(lengths.lengths):,} records from all over the files"
    write_line()
    write_line(f"lengths of {of}:")
    most = max(one.num_records for one in bins)
    rows = []
    for one in bins:
        text = f"{one.least:,}" if one.least == one.most else f"{one.least:,} - {one.most:,}"
        rows.append((f"{text} bytes", f"{one.num_records:,}", "#" * -(-_BAR * one.num_records // most)))
    write_table(("", "", ""), rows)


def _write_first(samples: Samples) -> None:
    kind = samples.kinds[0]
    if kind.name == kinds.EXAMPLE:
        write_line()
        rows = [feature_row(name, feature) for name, feature in kind.value.items()]
        write_table(("feature", "kind", "values", f"in record {samples.ids[0]}"), rows)


def _write_code(info: _Info) -> None:
    paths = repr(info.paths[0]) if len(info.paths) == 1 else repr(list(info.paths))
    codec = info.guess.codec
    write_line()
    for remark in info.guess.remarks:
        write_line(f"# {remark}")
    names = sorted(set(re.findall(r"\b([A-Z]\w+)\(", codec)))
    for line in ["import arsrc", f"from arsrc.codecs import {', '.join(names)}", "", *f"codec = {codec}".splitlines()]:
        write_line(line)
    batch_size = min(_BATCH_SIZE, info.lengths.num_records)  # a larger one would be an error
    write_line(f"config = arsrc.ArrayRecordSourceConfig({paths}, batch_size={batch_size}, codec=codec)")


def _write_source(source: Source) -> None:
    write_line()
    write_line("# The files of TFDS beside the records say what they hold.")
    splits = [f"{name} ({counted(num_records, 'record')})" for name, num_records in source.splits.items()]
    write_line(f"# {'Split' if len(splits) == 1 else 'Splits'}: {', '.join(splits)}.")
    if "Image(" in source.call:
        write_line("# Pictures are of any size: Image gives them all the size that the first one has.")
    if "None," in source.call:
        write_line(
            "# Left out, as without a fixed shape: features that are None here. Say what they hold to read them."
        )
    for line in ["import arsrc", "", *f"config = {source.call}".splitlines()]:
        write_line(line)


def _as_json(info: _Info) -> dict[str, Any]:
    facts, lengths = info.facts, info.lengths
    return {
        "files": [one._asdict() for one in facts.files],
        "num_records": lengths.num_records,
        "num_bytes": sum(one.num_bytes for one in facts.files),
        "group_sizes": facts.group_sizes,
        "compressions": facts.compressions,
        "writer_options": facts.writer_options,
        "lengths": _lengths_as_json(lengths) if len(lengths.lengths) else None,
        "first_record": _first_as_json(info.samples) if info.samples.kinds else None,
        "unreadable": info.samples.unreadable or None,
        "codec": info.guess.codec or None,
        "remarks": info.guess.remarks,
        "tfds_source": info.source.call if info.source else None,
        "tfds_splits": dict(info.source.splits) if info.source else None,
    }


def _lengths_as_json(lengths: Lengths) -> dict[str, Any]:
    return {
        "min": int(lengths.lengths.min()),
        "max": int(lengths.lengths.max()),
        "mean": float(lengths.lengths.mean()),
        "num_records": len(lengths.lengths),
        "are_all": lengths.are_all,
        "histogram": [one._asdict() for one in histogram(lengths.lengths)],
    }


def _first_as_json(samples: Samples) -> dict[str, Any]:
    kind = samples.kinds[0]
    found = {
        "record_id": samples.ids[0],
        "num_bytes": samples.sizes[0],
        "kind": kind.value.format if kind.name == kinds.IMAGE else kind.name,
        "description": described(kind),
    }
    if kind.name == kinds.EXAMPLE:
        found["features"] = [
            {"name": name, "kind": feature.kind, "num_values": len(feature.values)}
            for name, feature in kind.value.items()
        ]
    return found
