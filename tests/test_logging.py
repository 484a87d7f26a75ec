"""The log: what was opened, by which reader, and what caches hold."""

import logging
import re
import sys

import numpy as np
import pytest

import arsrc
from arsrc import ReadOptions
from arsrc._host.storage import address_range

DATA = np.arange(30, dtype=np.uint8).reshape(10, 3)
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux alone")


@pytest.fixture
def log(caplog):
    """`log()`: the texts since it was last called, by level."""

    def texts() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "arsrc"]
        caplog.clear()
        return found

    with caplog.at_level(logging.DEBUG, "arsrc"):
        yield texts


def write(folder, name, options="group_size:1,uncompressed"):
    (path,) = arsrc.write_array_record(folder / name, DATA, options=options)
    return path


def test_the_library_leaves_it_to_the_program_where_its_log_goes():
    logger = logging.getLogger("arsrc")
    assert not [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]
    assert (logger.level, logger.propagate) == (logging.NOTSET, True)


@only_linux
def test_opening_is_logged_once_with_its_numbers(tmp_path, log):
    paths = [write(tmp_path, name) for name in ("a", "b")]
    config = arsrc.ArrayRecordSourceConfig(paths, 2)
    arsrc.num_records(config)
    ((level, text),) = log()
    assert level == "INFO"
    assert re.fullmatch(r"opened 20 records in 2 files, 262 kB, in 0\.\d\d s: 2 mapped", text)
    arsrc.init(config)
    next(arsrc.iterate(config))
    assert log() == []


@only_linux
def test_opening_says_which_files_are_not_mapped_and_why_in_one_line(tmp_path, log):
    kinds = ["uncompressed", "zstd", "zstd", "uncompressed,transpose:true", "zstd,transpose:true"]
    paths = [write(tmp_path, f"{i}", f"group_size:4,{kind}") for i, kind in enumerate(kinds)]
    arsrc.num_records(arsrc.ArrayRecordSourceConfig(paths, 2))
    ((level, text),) = log()
    assert level == "INFO"
    assert text.endswith(
        "s: 1 mapped, 2 decoded from a map (2 zstd), 2 by array_record's reader "
        "(1 transposed, 1 transposed zstd); groups of up to 4 records"
    )
    arsrc.num_records(arsrc.ArrayRecordSourceConfig(paths[0], 2, read=ReadOptions(checksum="always")))
    ((level, text),) = log()
    assert level == "INFO"
    assert text.endswith("""1 by array_record's reader (1 checksum="always"); groups of up to 4 records""")


@only_linux
def test_files_that_could_be_mapped_but_are_not_are_a_warning(tmp_path, log, monkeypatch):
    monkeypatch.setattr(address_range, "_MAX_MAPS", 1)
    paths = [write(tmp_path, name) for name in ("a", "b")]
    config = arsrc.ArrayRecordSourceConfig(paths, 20)
    _, batch = next(arsrc.iterate(config))
    np.testing.assert_array_equal(batch.data, np.concatenate([DATA, DATA]))
    ((level, text),) = log()
    assert level == "WARNING"
    assert text.endswith("s: 2 by array_record's reader (2 cannot be mapped here)")


@only_linux
def test_files_that_are_opened_later_are_logged_in_detail_alone(tmp_path, log):
    path = write(tmp_path, "a")
    paths = [f"{path}[0:10]"]
    for number in range(40):
        (tmp_path / f"b{number}").write_bytes((tmp_path / "a").read_bytes())
        paths.append(f"{tmp_path}/b{number}[0:10]")
    config = arsrc.ArrayRecordSourceConfig(paths, 410, read=ReadOptions(read_ahead_bytes=0))
    arsrc.num_records(config)
    (level, text), *later = log()
    assert level == "INFO"
    assert re.search(r" s: 41 not open yet$", text)
    next(arsrc.iterate(config))
    later += log()
    assert {level for level, _ in later} == {"DEBUG"}
    assert later[-1][1].endswith(": 41 mapped")


@pytest.mark.parametrize("in_files", [False, True])
def test_a_cache_is_logged_when_it_is_made_when_it_is_full_and_when_it_is_found(tmp_path, log, in_files):
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path / "cache")) if in_files else ReadOptions()
    config = arsrc.ArrayRecordSourceConfig(write(tmp_path, "a"), 5, cacheable=True, num_epochs=2, read=read)

    def of_cache() -> list[str]:
        found = log()
        assert {level for level, _ in found} <= {"INFO"}
        return [text for _, text in found if "opened" not in text]

    assert arsrc.num_records(config) == 10
    where = f"in files, '{tmp_path}/cache/arsrc-" if in_files else "in memory (30 bytes): "
    (text,) = of_cache()
    assert text.startswith(f"decoded records are kept {where}")
    assert text.endswith("0 of 10 records are there")
    assert len(list(arsrc.iterate(config))) == 4
    (text,) = of_cache()
    assert text.endswith("10 of 10 records are there")
    arsrc.close(config)
    assert arsrc.num_records(config) == 10
    (text,) = of_cache()
    assert text.endswith(f"{10 if in_files else 0} of 10 records are there")
