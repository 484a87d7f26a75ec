"""array_record's module is imported where its reader or writer is wanted, and nothing else needs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import arsrc
from arsrc._host.format.writer_options import writer_options
from arsrc._host.readers.array_record import open_reader

MODULE = "array_record.python.array_record_module"
DATA = np.arange(120 * 8, dtype=np.uint8).reshape(120, 8)
MAPPED = {
    "single": "group_size:1,uncompressed",
    "grouped": "group_size:7,uncompressed",
    "zstd": "group_size:1,zstd",
    "zstd groups": "group_size:7,zstd",
}
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere array_record's reader reads all files")


def written(folder: Path, options: str) -> str:
    """A file of rows that begin with their number."""
    path = str(folder / "rows.array_record")
    arsrc.write_array_record(path, DATA, options=options)
    return path


def in_a_process(code: str, *args: str) -> str:
    """Run code in a process of its own, which must end well; what it prints."""
    command = [sys.executable, "-P", "-W", "error", "-c", code, *args]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


READ = """
import sys
if sys.argv[1] == "missing":
    sys.modules["array_record"] = None
import jax
import numpy as np
import arsrc
from arsrc import ArrayRecordSourceConfig, MixtureConfig
from arsrc.cli import main

data = np.arange(120 * 8, dtype=np.uint8).reshape(120, 8)
for path in sys.argv[2:]:
    config = ArrayRecordSourceConfig(path, batch_size=8, shuffle_records=True)
    for state, batch in zip(range(15), arsrc.iterate(config)):
        np.testing.assert_array_equal(batch[1].data, data[batch[1].record_ids])
    scan = jax.jit(lambda state: arsrc.scan_epoch(config, state, 0, lambda carry, batch: (carry, batch)))
    _, _, batches = scan(arsrc.init(config))
    np.testing.assert_array_equal(batches.data, data[batches.record_ids])
    assert len(np.unique(batches.record_ids)) == 120
    mixture = MixtureConfig([config, config.__class__(path, batch_size=8)], (1, 2), batch_size=8)
    batch = arsrc.next_batch(mixture, arsrc.init(mixture))[1]
    np.testing.assert_array_equal(batch.data, data[np.asarray(batch.record_ids) % 120])
    assert arsrc.read_records(path, [3]) == [data[3].tobytes()]
    arsrc.fingerprint(config)
    assert main(["info", path]) == main(["head", path]) == 0
    arsrc.close()
print(sorted(name for name in sys.modules if name.startswith("array_record") and sys.modules[name]))
"""


@only_linux
@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("array_record", ["there", "missing"])
def test_files_that_are_mapped_are_read_by_every_loop_and_command_without_array_record(
    array_record: str, tmp_path: Path
) -> None:
    for name in MAPPED:
        (tmp_path / name).mkdir()
    paths = [written(tmp_path / name, options) for name, options in MAPPED.items()]
    assert in_a_process(READ, array_record, *paths).splitlines()[-1] == "[]"


IMPORT = """
import sys
import arsrc
assert "array_record" not in sys.modules
arsrc.write_array_record(sys.argv[1], [b"a", b"b"])
assert "array_record.python.array_record_module" in sys.modules
"""


@pytest.mark.processes
def test_the_import_of_arsrc_leaves_array_record_alone_and_writing_imports_it(tmp_path: Path) -> None:
    in_a_process(IMPORT, str(tmp_path / "a.array_record"))


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if array_record were not installed."""
    monkeypatch.setitem(sys.modules, MODULE, None)


def test_writing_without_array_record_is_an_error_that_says_so_and_leaves_no_file(
    tmp_path: Path, missing: None
) -> None:
    path = str(tmp_path / "a.array_record")
    with pytest.raises(arsrc.ArsrcWriteError, match="needs array_record's writer, which cannot be imported") as caught:
        arsrc.write_array_record(path, [b"a"])
    assert caught.value.path == path
    assert str(caught.value).endswith("Run: pip install --force-reinstall array-record.")
    assert isinstance(caught.value.__cause__, ImportError)
    assert os.listdir(tmp_path) == []


def test_a_source_that_needs_the_reader_is_read_once_array_record_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "group_size:1,brotli")
    config = arsrc.ArrayRecordSourceConfig(path, batch_size=4)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, MODULE, None)
        with pytest.raises(arsrc.ArsrcReadError, match="needs array_record's reader, which cannot be") as caught:
            arsrc.init(config)
        assert caught.value.path == path
    np.testing.assert_array_equal(arsrc.next_batch(config, arsrc.init(config))[1].data, DATA[:4])


def test_masking_bad_records_does_not_mask_what_array_record_is_missing_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = arsrc.ArrayRecordSourceConfig(written(tmp_path, "group_size:1,brotli"), batch_size=4, on_bad_record="mask")
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(arsrc.ArsrcReadError, match="needs array_record's reader"):
        next(arsrc.iterate(config))


BROKEN = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "array_record").mkdir()
(folder / "array_record" / "__init__.py").write_text("raise RuntimeError('built for another processor')")
sys.path.insert(0, str(folder))
import arsrc
try:
    arsrc.write_array_record(sys.argv[2], [b"a"])
except arsrc.ArsrcWriteError as error:
    print(error)
"""


@pytest.mark.processes
def test_an_array_record_that_is_broken_is_named_with_its_own_words(tmp_path: Path) -> None:
    said = in_a_process(BROKEN, str(tmp_path), str(tmp_path / "a.array_record"))
    assert "cannot be imported (built for another processor); got path=" in said


THREADS = """
import sys, threading
from arsrc._host.readers.array_record import open_reader
num_records, barrier = [], threading.Barrier(8)
def work():
    barrier.wait()
    num_records.append(open_reader(sys.argv[1], sys.argv[1]).num_records())
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert num_records == [120] * 8, num_records
"""


@pytest.mark.processes
def test_many_threads_may_be_the_first_to_want_the_reader(tmp_path: Path) -> None:
    in_a_process(THREADS, written(tmp_path, "group_size:1,zstd"))


@pytest.mark.parametrize("options", [*MAPPED.values(), "group_size:1,brotli", "group_size:1,transpose:true"])
def test_the_options_of_the_writer_are_those_that_array_record_tells(tmp_path: Path, options: str) -> None:
    path = written(tmp_path, options)
    assert writer_options(path) == open_reader(path, path).writer_options_string()
    assert options.split(",")[1] in str(writer_options(path))


def test_of_what_is_no_whole_file_no_options_are_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("record\n" * 100)
    assert writer_options(str(tmp_path / "text")) is None
    assert writer_options(str(tmp_path / "none")) is None
