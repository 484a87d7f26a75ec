"""The notebook prints what stands in it, run from its first cell to its last as Jupyter does it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

# What `jupyter execute` runs.
EXECUTE = "from nbclient.cli import main; main()"
NOTEBOOK = Path(__file__).parent.parent / "examples" / "tour.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> list[str]:
    """The lines that a cell prints; warnings and all that is no text are there by their kinds."""
    kinds = [f"{one.output_type} {one.get('name')}" for one in cell.outputs]
    texts = [one.text if kind == "stream stdout" else kind for one, kind in zip(cell.outputs, kinds, strict=True)]
    return "".join(texts).splitlines()


def without_figures(lines: list[str]) -> list[str]:
    """What is the same on every machine: how lines begin, but for numbers and advice."""
    return [re.sub(r"\d+([.,]\d+)*", "#", line.partition(":")[0]) for line in lines if not line.startswith(" ")]


@pytest.mark.slow
@pytest.mark.processes
def test_the_notebook_prints_what_stands_in_it(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, executed := tmp_path / "tour.ipynb")
    command = [sys.executable, "-c", EXECUTE, "--inplace", "--timeout=200", "--kernel_name=python3", str(executed)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    cells = [code_cells(nbformat.read(path, as_version=4)) for path in (NOTEBOOK, executed)]
    for stored, cell in zip(*cells, strict=True):
        expected, found = printed(stored), printed(cell)
        assert expected, cell.source
        if "of-this-machine" in cell.metadata.get("tags", ()):
            expected, found = without_figures(expected), without_figures(found)
        assert found == expected, cell.source


def test_the_notebook_is_small_and_was_run_from_its_first_cell_to_its_last() -> None:
    assert NOTEBOOK.stat().st_size < 50_000
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any("data" in output for cell in cells for output in cell.outputs)
