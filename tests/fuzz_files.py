"""Look for bad files that arsrc does not take well: new ones each time, by a seed that is printed.

    FUZZ_SECONDS=300 FUZZ_SEED=1 python tests/fuzz_files.py            # what `make fuzz` runs

A case that ends the process, hangs, fails with another error than arsrc's, or gives records that nobody wrote, is made
as small as can be, printed, and put into the corpus, which the tests replay from then on.

    python tests/fuzz_files.py --write-good        # write the good files anew, with the array_record of today
"""

import collections
import dataclasses
import json
import lzma
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from bad_file_outcomes import outcomes
from bad_files import CORPUS, GOOD, Base, Case, Edit

from arsrc._host.format.layout import BLOCK_BYTES, parse_postscript

TOGETHER = 200


def write_good() -> None:
    for name, (options, records) in GOOD.items():
        with tempfile.NamedTemporaryFile() as file:
            writer = ArrayRecordWriter(file.name, options)
            for record in records:
                writer.write(record)
            writer.close()
            data = file.read()
        (CORPUS / f"{name}.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


# New cases.

HOSTILE = [0, 1, 2, 39, 40, 64, 255, 256, 1 << 16, (1 << 16) + 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 56) - 1,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1]  # fmt: skip
FIELDS = ["num_records", "decoded_size", "data_size", "data_hash", "header_hash"]


class Maker:
    """Makes cases of one base."""

    def __init__(self, name: str, base: Base, bases: dict[str, Base], draw: random.Random) -> None:
        self.name, self.base, self.others, self.draw = name, base, list(bases), draw
        self.num_bytes, self.num_blocks = len(base.data), len(base.data) // BLOCK_BYTES
        footer = parse_postscript(base.data[-BLOCK_BYTES:])
        postscript = self.num_bytes - BLOCK_BYTES
        heads = sorted({(head.start, head.stop) for head in base.heads}) or [(24, 64)]
        self.num_chunks = len(base.heads) and len(heads)
        ends = [*(begin for begin, _ in heads[1:]), footer]
        self.chunks = [range(begin, end) for (begin, _), end in zip(heads, ends, strict=True)]
        self.areas = [
            [range(*head) for head in heads],
            [part for part in base.values if len(part)] or [range(24, 64)],
            [range(footer, footer + 60 + 12 * len(heads))],
            [range(postscript, postscript + 120)],
            [range(at, at + 24) for at in range(0, self.num_bytes, BLOCK_BYTES)],
            [range(footer + 60 + 12 * len(heads))],
        ]

    def place(self) -> int:
        """A position in the file; those that say something are drawn more often."""
        return min(self.draw.choice(self.draw.choice(self.draw.choice(self.areas))), self.num_bytes - 1)

    def size(self) -> int:
        return self.draw.choice([1, 8, 24, 40, self.draw.randrange(1, 300), 512, 4096, BLOCK_BYTES])

    def block(self) -> int:
        return self.draw.randrange(self.num_blocks) * BLOCK_BYTES

    def number(self) -> int:
        near = self.draw.choice([self.num_chunks, len(self.base.records), self.num_bytes, self.place()])
        return self.draw.choice([*HOSTILE, near + self.draw.randrange(-2, 3)])

    def case(self) -> Case:
        kind = self.draw.choice(("raw", "raw", "signed", "lies", "lies"))
        if kind == "lies":
            return Case(self.name, [["draft", *self.several(self.lie)]], kind)
        return Case(self.name, [*self.several(self.edit), *([["sign"]] if kind == "signed" else [])], kind)

    def several(self, make: Any) -> list[Edit]:
        return [make() for _ in range(self.draw.choice((1, 1, 1, 2, 3)))]

    def edit(self) -> Edit:
        draw, at = self.draw, self.place()
        a, b = draw.choice(self.chunks), draw.choice(self.chunks)
        return draw.choice([
            ["flip", at, draw.randrange(8)],
            ["flip", self.place(), draw.randrange(8)],
            ["write", at, draw.choice(["00", "ff", "80", "7f", "ffffffffffffff7f", "ff" * 10, "80" * 9 + "01"])],
            ["write", at, draw.randbytes(draw.choice((1, 2, 8, 30))).hex()],
            ["zero", at, self.size()],
            ["zero", self.block(), BLOCK_BYTES],
            ["copy", self.place(), at, self.size()],
            ["copy", self.block(), self.block(), BLOCK_BYTES],
            ["copy", a.start, b.start, len(a)],
            ["swap", self.block(), self.block(), BLOCK_BYTES],
            ["exchange", a.start, len(a), b.start, len(b)],
            ["cut", draw.choice((at, self.block(), self.block())), draw.choice((self.size(), BLOCK_BYTES))],
            ["cut", draw.choice((at, self.block())), self.num_bytes],
            ["insert", draw.choice((at, self.block(), self.num_bytes)), draw.choice((self.size(), BLOCK_BYTES))],
            ["splice", draw.choice(self.others), at, at, self.size()],
            ["splice", draw.choice(self.others), self.block(), self.block(), self.size()],
        ])  # fmt: skip

    def lie(self) -> Edit:
        draw = self.draw
        one, two = (draw.randrange(max(self.num_chunks, 1)) for _ in range(2))
        return draw.choice([
            ["entry", one, 0, self.number()],
            ["entry", one, 0, draw.choice(self.chunks).start],
            ["entry", one, draw.randrange(3), self.number()],
            ["drop entry", one],
            ["repeat entry", one],
            ["swap entries", one, two],
            ["count", draw.randrange(3), self.number()],
            ["tail", draw.choice(["10" + "05", "18" + "05", "2203616263", "22ff", "3a00", "0801"])],
            ["move", one, draw.choice((1, 2, 3, 8))],
            ["offset", self.number()],
            ["footer", draw.choice(FIELDS), self.number()],
            ["postscript", draw.choice(FIELDS), self.number()],
            ["compression", draw.choice("\0bszx")],
            ["chunk", one, draw.choice(FIELDS), self.number()],
            ["chunk", one, "kind", draw.choice("rtpsmx")],
            ["payload", one, draw.randrange(60), draw.randbytes(draw.choice((1, 2, 8))).hex()],
            ["payload", one, draw.randrange(20), draw.choice(["ffffffff0f", "ff" * 9 + "01", "00000000"])],
            ["swap chunks", one, two],
            ["drop chunk", one],
            ["repeat chunk", one],
        ])  # fmt: skip


# What comes of them.


def is_bad(verdict: str) -> bool:
    return verdict.startswith(("wrong", "crash", "hang"))


def smaller(case: Case, reader: str, bases: dict[str, Base]) -> Case:
    """Leave out edits as long as something bad comes of the rest, by the same reader."""
    shorter = [_without(case.edits, at) for at in range(len(case.edits))]
    for number, (name, *lies) in enumerate(case.edits):
        if name == "draft":
            fewer = [_without(lies, at) for at in range(len(lies))]
            shorter += [[*case.edits[:number], [name, *some], *case.edits[number + 1 :]] for some in fewer if some]
    for edits in filter(None, shorter):
        less = dataclasses.replace(case, edits=edits)
        if any(by == reader and is_bad(verdict) for _, by, verdict in outcomes([less], bases)):
            return smaller(less, reader, bases)
    return case


def _without(edits: Sequence[Edit], at: int) -> list[Edit]:
    return [*edits[:at], *edits[at + 1 :]]


def main() -> None:
    seconds, seed = (
        float(os.environ.get("FUZZ_SECONDS", "300")),
        int(os.environ.get("FUZZ_SEED", time.time_ns() % 10**9)),
    )
    print(f"FUZZ_SEED={seed} FUZZ_SECONDS={seconds:.0f}", flush=True)
    draw = random.Random(seed)
    bases = {name: Base.load(name) for name in GOOD}
    makers = [Maker(name, base, bases, draw) for name, base in bases.items()]
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    found: dict[str, Case] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        cases = [draw.choice(makers).case() for _ in range(TOGETHER)]
        for number, reader, verdict in outcomes(cases, bases):
            case = cases[number]
            counts[case.what, reader, verdict.partition(":")[0]] += 1
            if is_bad(verdict) and (len(found) < 20 or not verdict.startswith("wrong")):
                less = smaller(case, reader, bases)
                less = dataclasses.replace(less, what=f"seed {seed}, {reader}: {verdict}")
                if found.setdefault(json.dumps(less.edits), less) is less:
                    print(json.dumps(dataclasses.astuple(less)), flush=True)
    for (kind, reader), verdicts in _table(counts).items():
        print(f"{kind:7} {reader:7}", *(f"{count:7,} {verdict}" for verdict, count in sorted(verdicts.items())))
    if found:
        (CORPUS / f"found-{seed}.json").write_text(json.dumps([dataclasses.astuple(case) for case in found.values()]))
        sys.exit(f"{len(found)} cases were put into {CORPUS}/found-{seed}.json")


def _table(counts: "collections.Counter[tuple[str, str, str]]") -> dict[tuple[str, str], dict[str, int]]:
    table: dict[tuple[str, str], dict[str, int]] = {}
    for (kind, reader, verdict), count in sorted(counts.items()):
        table.setdefault((kind, reader), {})[verdict] = count
    return table


if __name__ == "__main__":
    write_good() if "--write-good" in sys.argv else main()
