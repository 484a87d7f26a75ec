"""What names mean on the disk: the working folder, the home folder, brackets, globs and sharded sets."""

import dataclasses
import errno
import glob
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host.storage import system
from arsrc._host.storage.file_names import _found, absolute


def write(folder: Path, *names: str) -> None:
    """Write one file each, of one record that is the file's name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        arsrc.write_array_record(folder / name, [name.encode()])


def names_in(paths: Any) -> list[str]:
    """The records that a config reads, which say which files they come from."""
    config = ArrayRecordSourceConfig(paths, 1, codec=arsrc.codecs.Ragged(max_length=100))
    rows = arsrc.take(config, np.arange(arsrc.num_records(config))).data
    arsrc.close(config)
    lengths, values = np.asarray(rows["length"]), np.asarray(rows["values"])
    return [bytes(row[:length]).decode() for row, length in zip(values, lengths, strict=True)]


def shards(stem: str, number: int, suffix: str = "") -> list[str]:
    return [f"{stem}-{shard:05d}-of-{number:05d}{suffix}" for shard in range(number)]


def failure(paths: Any, kind: type[Exception] = FileNotFoundError) -> str:
    with pytest.raises(kind, match=r"^\[arsrc\] paths: ") as caught:
        ArrayRecordSourceConfig(paths, 1, local_files_only=True)
    return str(caught.value)


# The working folder and the home folder.


def test_a_config_means_the_same_files_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one", "a", "b")
    (tmp_path / "two").mkdir()
    arsrc.write_array_record(tmp_path / "two" / "b", [b"of the other folder"])
    monkeypatch.chdir(tmp_path / "one")
    codec = arsrc.codecs.Ragged(max_length=100)
    read = ReadOptions(max_open_files=1, checksum="always", read_ahead_bytes=0)  # each read opens its file again
    config = ArrayRecordSourceConfig(["a", "./b"], 1, codec, read=read)
    state, first = arsrc.next_batch(config, arsrc.init(config))
    saved = arsrc.to_state_dict(config, state)
    monkeypatch.chdir(tmp_path / "two")
    _, second = arsrc.next_batch(config, arsrc.from_state_dict(config, saved))
    assert [chr(batch.data["values"][0, 0]) for batch in (first, second)] == ["a", "b"]
    assert arsrc.to_state_dict(config, state) == saved
    arsrc.close(config)
    assert arsrc.num_records(config) == 2
    for copy in (dataclasses.replace(config, seed=1), pickle.loads(pickle.dumps(config))):
        assert copy.paths == config.paths
    there = ArrayRecordSourceConfig([tmp_path / "one" / "a", "../one/b"], 1, codec, read=read)
    assert there == config
    assert hash(there) == hash(config)
    moved = [Path(path).rename(tmp_path / Path(path).name) for path in config.paths]
    arsrc.close()
    elsewhere = dataclasses.replace(config, paths=[os.path.relpath(path) for path in moved])
    assert arsrc.step_of(elsewhere, arsrc.from_state_dict(elsewhere, saved)) == 1


def test_a_cache_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a")
    read = ReadOptions(cache_bytes=0, cache_dir="cache")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    config = ArrayRecordSourceConfig(tmp_path / "a", 1, cacheable=True, read=read)
    arsrc.next_batch(config, arsrc.init(config))
    arsrc.close(config)
    assert read.cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir())
    assert not list((tmp_path / "other").iterdir())


def test_files_are_written_where_they_were_asked_for_wherever_a_generator_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)

    def elements() -> Any:
        yield b"first"
        os.chdir("other")
        yield b"second"

    assert arsrc.write_array_record("a", elements()) == ("a",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "other"]
    assert not list((tmp_path / "other").iterdir())


def test_the_home_folder_has_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arsrc.write_array_record("~/a", [b"~/a"]) == (str(tmp_path / "a"),)
    assert names_in("~/a") == names_in("~/*[0:1]") == ["~/a"]
    assert ReadOptions(cache_dir="~/cache").cache_dir == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("a", "sub/a"),
        ("./a", "sub/a"),
        ("././a", "sub/a"),
        ("../a", "a"),
        (".././/sub/../a", "sub/../a"),  # sub may be a link
        ("..a/b", "sub/..a/b"),
        (".", "sub/"),
        ("*", "sub/*"),
    ],
)
def test_dots_that_lead_out_of_the_working_folder_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kept: str
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert absolute(path, "paths") == f"{tmp_path}/{kept}"
    assert absolute(f"{tmp_path}/{kept}", "paths") == f"{tmp_path}/{kept}"


# Brackets.


@pytest.mark.parametrize("name", ["a[0:3]", "a[9:3]", "a[01]", "a*", "a@4", "a@*", "deep[x]/b", "deep[0:1]/b[0:2]"])
def test_what_was_written_under_a_name_is_read_under_it(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    others = ["a", "a0", *shards("a", 4), "deepx/b"]
    write(tmp_path, *others)
    assert names_in(str(tmp_path / name)) == [name]
    assert names_in(f"{tmp_path / name}[0:1]") == [name]


def test_globs_find_what_lies_under_a_folder_with_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "deep[x]/a1", "deep[x]/sub[0]/a2", "deepx/a3")
    assert names_in(f"{tmp_path}/deep[x]/*1") == ["deep[x]/a1"]
    assert names_in(f"{tmp_path}/deep[x]/**/a[12]") == ["deep[x]/a1", "deep[x]/sub[0]/a2"]
    assert names_in(f"{tmp_path}/deep[xy]/*") == ["deepx/a3"]
    monkeypatch.chdir(tmp_path / "deep[x]")
    assert names_in("*1") == ["deep[x]/a1"]


# Sharded sets.


@pytest.mark.parametrize(
    ("stem", "suffix"), [("train.array_record", ""), ("train", ".array_record"), ("d-train.array_record", "")]
)
def test_a_set_is_named_by_its_number_of_shards(tmp_path: Path, stem: str, suffix: str) -> None:
    files = shards(stem, 3, suffix)
    write(tmp_path, *files, "train", "test.array_record-00000-of-00003", "train.array_record-00000-of-00003.tmp")
    for number in ("3", "*"):
        assert names_in(f"{tmp_path}/{stem}@{number}{suffix}") == files
    assert names_in([f"{tmp_path}/{stem}@3{suffix}[0:1]", f"{tmp_path}/train"]) == [*files, "train"]


def test_what_write_array_record_writes_is_a_set(tmp_path: Path) -> None:
    paths = arsrc.write_array_record(tmp_path / "a", [b"x", b"y", b"z"], num_shards=3)
    assert len(paths) == 3
    assert names_in(tmp_path / "a@3.array_record") == ["x", "y", "z"]


def test_the_one_complete_set_is_meant_by_an_asterisk(tmp_path: Path) -> None:
    write(tmp_path, *shards("a", 2), *shards("a", 4)[:3])
    assert names_in(f"{tmp_path}/a@*") == shards("a", 2)
    write(tmp_path, shards("a", 4)[3])
    assert "There are several such sets: 'a@2', 'a@4'." in failure(f"{tmp_path}/a@*")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write(tmp_path, *shards("a", 9)[::4], "a-00000-of-00002")
    for number in ("9", "*"):
        text = failure(f"{tmp_path}/a@{number}")
        lost = "'a-00001-of-00009', 'a-00002-of-00009', 'a-00003-of-00009', 'a-00005-of-00009', ..."
        assert text.endswith(f"Of its 9 shards 6 missing: {lost}.")


@pytest.mark.parametrize("name", ["a@0", "a@", "@4", "a@-1", "a@4x", "a@999999999999"])
def test_what_is_no_set_is_a_missing_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, *shards("a", 4))
    assert "match no file" in failure(f"{tmp_path}/{name}")


# Advice.


def advice(text: str) -> list[str]:
    return [eval(part) for part in re.findall(r"'[^']*'", text.partition("There is ")[2])]


TFDS = [*shards("d-train.array_record", 4), *shards("d-test.array_record", 1)]


@pytest.mark.parametrize(
    ("files", "advised"),
    [
        (TFDS, ["d-test.array_record@1", "d-train.array_record@4"]),
        (["a.array_record", "b.array_record"], ["a.array_record", "b.array_record"]),
        ([f"{i}.array_record" for i in range(9)], ["*.array_record"]),
        (shards("a", 9, ".array_record"), ["a@9.array_record"]),
        (["a.array_record", *shards("b.array_record", 2)], ["a.array_record", "b.array_record@2"]),
    ],
    ids=range(5),
)
def test_for_a_folder_names_are_advised_that_mean_what_lies_there(
    tmp_path: Path, files: Sequence[str], advised: list[str]
) -> None:
    write(tmp_path, *files)
    (tmp_path / "features.json").write_text("{}")
    for text in (failure(f"{tmp_path}/", ValueError), failure(f"{tmp_path}/gone")):
        assert advice(text) == [f"{tmp_path}/{name}" for name in advised]
    assert sorted(names_in(advice(text))) == sorted(files)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert f"There is no folder '{tmp_path}/gone'." in failure(f"{tmp_path}/gone/deeper/a")
    assert f"No name in '{tmp_path}' holds 'array_record'." in failure(f"{tmp_path}/a")
    assert f"Nothing in '{tmp_path}' matches 'gone*/a'." in failure(f"{tmp_path}/gone*/a")


class Forbidden(system.System):
    """Folders that cannot be looked into: the tests may run as root, who may look everywhere."""

    def list_folder(self, folder: str) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


def test_a_folder_that_cannot_be_looked_into_is_named_and_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")
    monkeypatch.setattr(system, "calls", Forbidden())
    for path in ("a@4", "a*", "*/a", "**/a"):
        text = failure(f"{tmp_path}/{path}", arsrc.ArsrcReadError)
        assert text == f"[arsrc] paths: cannot look into a folder (Permission denied); got path='{tmp_path}'."
    assert "match no file" in failure(f"{tmp_path}/b")
    assert "is a folder" in failure(str(tmp_path), ValueError)
    assert names_in(f"{tmp_path}/a") == ["a"]


PARTS = ["a", "b", ".a", "ab", "a*", "?", "*", "[ab]", "**", ".*", ".", "..", "[a]b"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join))
def test_globs_are_those_of_python(tree: Path, pattern: str) -> None:
    expected = glob.glob(pattern, root_dir=tree, recursive=True)
    # But for the empty name below a folder, which is the folder itself.
    assert set(_found(str(tree), pattern)) == {name for name in expected if not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "so" / "deep" / "that" / "none leaves it"
    for name in ("a/a/b", "a/b", "a/.a/a", "ab/ab", "ab/a/.b", ".a/a", "b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "ab" / "b").symlink_to(folder / "a")
    (folder / "a" / "ab").symlink_to("nowhere")
    return folder


def test_addresses_are_refused_in_file_instructions_too() -> None:
    @dataclasses.dataclass
    class Instruction:
        filename: str = "gs://bucket/a"
        skip: int = 0
        take: int = 3
        examples_in_shard: int = 3

    with pytest.raises(arsrc.ArsrcValueError, match="address in place of a path"):
        ArrayRecordSourceConfig(Instruction(), 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda address: arsrc.ReadOptions(cache_dir=address),
        lambda address: arsrc.write_array_record(address, [b"a"]),
        lambda address: arsrc.write_array_record(address, [b"a"], num_shards=2),
    ],
)
def test_an_address_is_no_path_to_write_to(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(arsrc.ArsrcValueError, match="address in place of a path"):
        use("gs://bucket/a.array_record")
    assert not os.listdir(tmp_path)
