"""A source and files that others write, replace, cut, lengthen, rewrite, remove and restore, in any order."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import arsrc
from arsrc._host import open_files, registry

BATCH_SIZE = 4
KINDS = ["group_size:1,uncompressed", "group_size:5,uncompressed", "group_size:5,zstd"]
NAMES = ["a", "b"]

names = st.sampled_from(NAMES)
counts = st.sampled_from([8, 20, 20, 60])  # mostly equal, so that nothing but the content is other


class FilesAndSource(RuleBasedStateMachine):
    """Two files, one config, and loops over it.

    What is in a file is the last that was written as a whole; a file that something was done to holds it or is an
    error. What begins reads what is in the files then, and goes on with that.
    """

    @initialize(kind=st.sampled_from(KINDS))
    def begin(self, kind: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(open_files, "_LOOK_SHARE", 0)  # however long looking takes on a busy machine
        self.folder, self.kind = Path(tempfile.mkdtemp()), kind
        self.version = self.time = 0
        self.held: dict[str, np.ndarray] = {}
        self.is_whole: dict[str, bool] = {}
        self.num_changes = 0
        self.loops: list[tuple[Iterator[Any], np.ndarray, int, int]] = []
        for name in NAMES:
            self.write(name, 20, "write")
        # No thread reads while a file is cut: the process would end.
        read = arsrc.ReadOptions(ahead="never", read_ahead_bytes=0, max_open_files=1)
        self.config = arsrc.ArrayRecordSourceConfig([self.folder / name for name in NAMES], BATCH_SIZE, read=read)

    def teardown(self) -> None:
        arsrc.close()
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    # Others.

    @rule(name=names, num_records=counts, how=st.sampled_from(["write", "move", "over"]))
    def write(self, name: str, num_records: int, how: str) -> None:
        """Write it anew: beside and renamed, or over what is there."""
        self.version += 1
        path, beside = self.folder / name, self.folder / "beside"
        rows = np.stack([np.full(num_records, self.version), np.arange(num_records)], 1).astype("<u4").view(np.uint8)
        arsrc.write_array_record(path if how == "write" else beside, rows, options=self.kind)
        if how == "move":
            os.replace(beside, path)
        if how == "over":
            path.write_bytes(beside.read_bytes())
        self.changed(name)
        self.held[name], self.is_whole[name] = rows, True

    @rule(name=names, how=st.sampled_from([0, 0.3, 0.6, 0.99, bytes(65_536), b"more", b"\xff" * 131_072, None]))
    def damage(self, name: str, how: float | bytes | None) -> None:
        """Cut it to a share, lengthen it, or remove it."""
        path = self.folder / name
        if how is None:
            path.unlink(missing_ok=True)
        elif isinstance(how, bytes):
            with open(path, "ab") as file:
                file.write(how)
        elif path.exists():
            os.truncate(path, int(path.stat().st_size * how))
        self.changed(name)

    @rule()
    def restore(self) -> None:
        """Put back what was written last."""
        for name in NAMES:
            if not self.is_whole[name]:
                arsrc.write_array_record(self.folder / name, self.held[name], options=self.kind)
                self.changed(name)
                self.is_whole[name] = True

    def changed(self, name: str) -> None:
        self.num_changes += 1
        self.is_whole[name] = False
        # Clocks of file systems tick some hundred times a second: two changes in one tick look like one.
        self.time += 1
        if (self.folder / name).exists():
            os.utime(self.folder / name, ns=(self.time * 10**9, self.time * 10**9))

    # The source.

    def rows(self) -> np.ndarray:
        return np.concatenate([self.held[name] for name in NAMES])

    def exact_or_error(self, read: Any, must_work: bool) -> Any:
        """Return what `read` gives, None for an error."""
        try:
            return read()
        except arsrc.ArsrcError as error:
            text = str(error)
            assert text.startswith("[arsrc] "), text
            assert str(self.folder) in text, text
            assert not must_work, text
            return None

    @rule()
    def count(self) -> None:
        found = self.exact_or_error(lambda: arsrc.num_records(self.config), all(self.is_whole.values()))
        assert found in (None, len(self.rows()))

    @rule()
    def take(self) -> None:
        rows = self.rows()
        ids = np.arange(len(rows))[::-3]

        def read() -> Any:
            source = registry.source(self.config)
            if source.plan.num_records != len(rows):
                return None
            return source.take(ids[None].astype(np.uint32))[0].reshape(len(ids), -1)

        found = self.exact_or_error(read, all(self.is_whole.values()))
        assert found is None or np.array_equal(found, rows[ids])

    @rule()
    def save_and_restore(self) -> None:
        def read() -> Any:
            state = arsrc.state_at(self.config, 3)
            return int(arsrc.from_state_dict(self.config, arsrc.to_state_dict(self.config, state)).index)

        assert self.exact_or_error(read, all(self.is_whole.values())) in (None, 12)

    @rule(number=st.integers(0, 2), num_steps=st.integers(1, 8))
    def loop(self, number: int, num_steps: int) -> None:
        """Begin a loop where there is no such, and go on with it."""
        if number >= len(self.loops):
            self.begin_loop()
        for _ in range(num_steps):
            if self.loops:
                self.step(number)

    def begin_loop(self) -> None:
        def read() -> Any:
            loop = arsrc.iterate(self.config)
            return loop, next(loop)

        found = self.exact_or_error(read, all(self.is_whole.values()))
        if found is not None:
            loop, (_, batch) = found
            rows = self.rows()
            assert np.array_equal(batch.data, rows[:BATCH_SIZE])
            self.loops.append((loop, rows, 1, self.num_changes))

    def step(self, number: int) -> None:
        loop, rows, step, num_changes = self.loops.pop(number % len(self.loops))
        found = self.exact_or_error(lambda: next(loop), num_changes == self.num_changes)
        if found is not None:
            per_epoch = len(rows) // BATCH_SIZE
            first = step % per_epoch * BATCH_SIZE
            assert np.array_equal(found[1].data, rows[first : first + BATCH_SIZE]), (step, found[1].data, rows)
            self.loops.append((loop, rows, step + 1, num_changes))

    @rule()
    def close(self) -> None:
        arsrc.close()
        self.loops = []  # they would go on with what is there then


TestFilesAndSource = FilesAndSource.TestCase
TestFilesAndSource.settings = settings(stateful_step_count=40)
