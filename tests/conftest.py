"""What all tests share: strict JAX, hypothesis profiles, and real ArrayRecord files."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import jax
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from arsrc import bridge

# Strict here and never for users: a promotion that nobody meant is a bug that most inputs hide.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadlines: the first example of a test compiles and opens files, the others do not.
# quick is a gate, so it draws the same examples each time: what fails there was broken by the change at hand.
hypothesis.settings.register_profile("quick", max_examples=25, deadline=None, derandomize=True)
# thorough is a search, so it draws new ones each time and prints how to see a failure again.
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# Shells let what they run in the background ignore Ctrl-C, and so would all that is started here to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WriteRecords = Callable[..., str]


@pytest.fixture(scope="session")
def records_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole run, for files that many tests or many hypothesis examples read."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="session")
def write_records() -> WriteRecords:
    """`write_records(path, records, options="group_size:1")`: write an ArrayRecord file, return its path."""

    def write(path: str | os.PathLike[str], records: Sequence[bytes], options: str = "group_size:1") -> str:
        writer = ArrayRecordWriter(os.fspath(path), options)
        for record in records:
            writer.write(record)
        writer.close()
        return os.fspath(path)

    return write


@pytest.fixture
def bridge_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path by which reads cross the bridge: "portable", or "fast", the one that this JAX should take.

    Configs of a test that takes both bear its name: JAX keeps what it has traced, for equal configs.
    """
    path = getattr(request, "param", "fast")
    if path == "portable":
        monkeypatch.setattr(bridge, "_path", lambda: bridge.portable)
    return path
