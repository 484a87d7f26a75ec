"""The command line on folders of TFDS: their files, and a line of Python that reads them as pasted."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import arsrc
from arsrc.cli import main

GOLDEN = Path(__file__).parent / "golden" / "written_by_tfds.zip"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tfds")
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(path)
    return path / "numbers" / "1.2.0"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*args: Any) -> tuple[int, str, str]:
        code = main(list(map(str, args)))
        return code, *capsys.readouterr()

    return run_it


@pytest.mark.parametrize(
    ("of", "split", "num_records"),
    [
        ("", "train", 11),
        ("..", "train", 11),
        ("numbers-train*", "train", 11),
        ("numbers-*t*", "train", 11),
        ("numbers-[!r]*-00001-of-00003", "train", 11),
        ("numbers-extra-part*", "extra-part", 4),
        ("numbers-test.array_record-00001-of-00003", "test", 3),
    ],
)
def test_what_info_prints_for_a_data_set_of_tfds_reads_it_as_pasted(
    folder: Path, run: Run, of: str, split: str, num_records: int
) -> None:
    done, out, err = run("info", folder / of if of != ".." else folder.parent)
    assert (done, err) == (0, "")
    pasted: dict[str, Any] = {}
    code = out[out.index("import arsrc") :].replace("features={", 'features={"huge": None,')  # needs 64 bits
    exec(code, pasted)
    assert f'split="{split}"' in out
    assert '    "photo": arsrc.codecs.Image((3, 2, 3)),  # Image uint8[any, any, 3], png\n' in out
    assert '    "name": None,  # Text\n' in out
    assert arsrc.num_records(pasted["config"]) == num_records
    _, batch = arsrc.next_batch(pasted["config"], arsrc.init(pasted["config"]))
    size = pasted["config"].batch_size
    assert batch.data["image"].shape == (size, 4, 5, 3)
    assert batch.data["photo"].shape == (size, 3, 2, 3)
    assert batch.data["place"]["at"]["size"].shape == (size, 2)
    arsrc.close(pasted["config"])


@pytest.mark.parametrize(
    ("of", "splits"),
    [
        ("", "Splits: train (11 records), test (3 records), extra-part (4 records)."),
        ("numbers-test*", "Split: test (3 records)."),
    ],
)
def test_info_lists_the_splits_that_files_are_of(folder: Path, run: Run, of: str, splits: str) -> None:
    assert f"# {splits}\n" in run("info", folder / of)[1]


@pytest.mark.parametrize("command", ["info", "head", "verify", "bench"])
def test_files_that_a_folder_lacks_are_named_as_by_the_call_that_reads_it(
    folder: Path, run: Run, tmp_path: Path, command: str
) -> None:
    gone = "numbers-test.array_record-00001-of-00003"
    for file in folder.iterdir():
        if file.name != gone:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(arsrc.ArsrcFileNotFoundError) as error:
        arsrc.tfds.source(
            tmp_path, "test", batch_size=1, features=dict.fromkeys(arsrc.tfds.info(folder).features, "u1")
        )
    text = f"missing=[{gone!r}]. Copy them there, or let TFDS write the data set again."
    assert str(error.value).endswith(text)
    code, out, err = run(command, tmp_path)
    assert (code, out) == (1, "")
    assert "is not complete: 1 of 9 files that are to be read are not there" in err
    assert err.endswith(f"{text}\n")


def test_json_has_the_call_too_and_null_for_other_files(folder: Path, run: Run, tmp_path: Path) -> None:
    found = json.loads(run("info", folder, "--json")[1])
    assert eval(found["tfds_source"], {"arsrc": arsrc}).batch_size == 11
    assert found["tfds_splits"] == {"train": 11, "test": 3, "extra-part": 4}
    (tmp_path / "x").write_bytes((folder / "numbers-test.array_record-00001-of-00003").read_bytes())
    assert json.loads(run("info", tmp_path / "x", "--json")[1])["tfds_source"] is None


def test_files_that_the_data_set_does_not_name_are_read_as_others_are(folder: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.array_record").write_bytes((folder / "numbers-test.array_record-00001-of-00003").read_bytes())
    for name in ("dataset_info.json", "features.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "arsrc.ArrayRecordSourceConfig(" in run("info", tmp_path / "x.array_record")[1]
    (tmp_path / "dataset_info.json").write_text("{")
    assert "arsrc.ArrayRecordSourceConfig(" in run("info", tmp_path / "x.array_record")[1]


def test_a_folder_stands_for_the_files_of_all_its_splits(folder: Path, run: Run) -> None:
    of_files = [folder / f"numbers-{split}.array_record@3" for split in ("train", "test", "extra-part")]
    assert run("verify", folder) == (0, "18 records of 9 files: all are good\n", "")
    assert run("head", folder, "-n", "18") == run("head", *of_files, "-n", "18")


def test_a_folder_that_is_none_of_tfds_or_holds_several_data_sets_is_refused(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    code, out, err = run("info", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("arsrc: error: paths: is a folder; got path=")
    for version in ("1.0.0", "2.0.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").write_bytes((folder / "dataset_info.json").read_bytes())
    assert "holds 2 data sets; got" in run("info", tmp_path)[2]
