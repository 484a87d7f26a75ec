"""Bad files, kept since each is wrong in a way of its own: read right or refused, by every reader."""

import json

import pytest
from bad_file_outcomes import READERS, run
from bad_files import CORPUS, GOOD, Case

CASES = [Case(*fields) for path in sorted(CORPUS.glob("*.json")) for fields in json.loads(path.read_text())]


@pytest.mark.processes
def test_bad_files_end_no_process_and_give_right_records_or_errors() -> None:
    found = run(CASES)
    assert len(found) == len(CASES) * len(READERS)
    assert [line for line in found if line[2].startswith(("wrong", "crash", "hang"))] == []
    # Of no other kind, so that a case which is read otherwise one day is looked at.
    assert {case.what for case, _, verdict in found if verdict in ("payload", "moved", "other")} == {
        "a bit of a record is another: seen by hashes alone",
        "a bit of a compressed chunk is another",
        "two chunks of the same size have changed places: nothing can tell",
    }


@pytest.mark.processes
def test_the_good_files_that_they_are_made_of_are_read_right() -> None:
    found = run([Case(name, []) for name in GOOD if GOOD[name][1]])
    assert [line for line in found if line[2] != "right"] == []
