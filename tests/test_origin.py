"""`origin`: which records rows are made of."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import arsrc
from arsrc import Packing
from arsrc.codecs import Ragged

Config = arsrc.ArrayRecordSourceConfig
LENGTHS = [5, 0, 40, 7, 16, 1, 9, 33, 12, 3]
CODEC = Ragged("int32", max_length=64)


@pytest.fixture(scope="module")
def paths(records_dir: Path, write_records: Callable[..., str]) -> list[str]:
    """Documents whose tokens say which they are, in two files."""
    documents = [np.arange(n, dtype=np.int32) + 1000 * number for number, n in enumerate(LENGTHS)]
    return [
        write_records(records_dir / f"origin-{a}", [d.tobytes() for d in documents[a:b]]) for a, b in ((0, 4), (4, 10))
    ]


def place(paths: list[str], record: int) -> tuple[str, int]:
    return (paths[0], record) if record < 4 else (paths[1], record - 4)


def test_a_row_that_is_a_record_has_one_origin(paths: list[str]):
    config = Config(paths, 2, CODEC)
    assert arsrc.origin(config, [5, 2**32 - 1, 0]) == [
        (arsrc.Origin(paths[1], 1, 5, 0, None, 0),),
        (),
        (arsrc.Origin(paths[0], 0, 0),),
    ]
    selected = dataclasses.replace(config, select=[2, 7])
    assert arsrc.origin(selected, np.array([1])) == [(arsrc.Origin(paths[1], 3, 1),)]


@pytest.mark.parametrize(
    "packing", [Packing(16), Packing(16, "fit"), Packing(8, end_of_document=9, targets=True)], ids=repr
)
@pytest.mark.parametrize("select", [None, [2, 3, 5, 7, 9]])
def test_a_packed_row_has_the_documents_that_its_tokens_are_of(paths: list[str], packing: Packing, select: Any):
    config = Config(paths, 2, CODEC, pack=packing, select=select)
    rows = arsrc.load_resident(config)
    found = arsrc.origin(config, np.arange(arsrc.num_records(config)))
    chosen = list(range(len(LENGTHS))) if select is None else select
    for row, pieces in enumerate(found):
        tokens = np.asarray(rows["tokens"][row])[np.asarray(rows["segment_ids"][row]) != 0]
        body = tokens[tokens != 9] if packing.end_of_document is not None else tokens
        expected = [chosen[one.record_id] * 1000 + token for one in pieces for token in range(one.start, one.stop or 0)]
        assert body.tolist() == [token for token in expected if packing.end_of_document is None or token != 9]
        for one in pieces:
            assert (one.path, one.position) == place(paths, chosen[one.record_id])


def test_a_mixture_names_the_source(paths: list[str]):
    packed = Config(paths, 2, CODEC, pack=Packing(16))
    first, second = dataclasses.replace(packed, paths=paths[0]), dataclasses.replace(packed, paths=paths[1])
    mixture = arsrc.MixtureConfig((first, second, first), (1, 1, 1), batch_size=2)
    sizes = [arsrc.num_records(one) for one in (first, second, first)]
    found = arsrc.origin(mixture, np.arange(sum(sizes)))
    alone = [
        tuple(dataclasses.replace(one, source=source) for one in row)
        for source, config in enumerate((first, second, first))
        for row in arsrc.origin(config, np.arange(sizes[source]))
    ]
    assert found == alone


def test_what_is_no_row_is_refused(paths: list[str]):
    config = Config(paths, 2, CODEC)
    with pytest.raises(arsrc.ArsrcIndexError, match=r"\[arsrc\] origin: record_ids must be in \[0, 10\)"):
        arsrc.origin(config, [10])
    with pytest.raises(arsrc.ArsrcTypeError, match="must be a sequence of integers"):
        arsrc.origin(config, 3)
    with pytest.raises(arsrc.ArsrcTypeError, match="runs on the host"):
        jax.jit(lambda ids: arsrc.origin(config, ids))(np.arange(2))
