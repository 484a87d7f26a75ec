"""What the documentation shows is what happens: the README's code, every example, and the doctests."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import arsrc

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Every example, and the arguments that make its run reproducible.
EXAMPLES = {
    "bad_records.py": (),
    "compressed_files.py": (),
    "from_tfrecord.py": (),
    "multi_host.py": (),
    "python_loop.py": (),
    "resume.py": ("--kill-at", "137"),
    "train_digits.py": ("--output", "pictures"),
    "train_images.py": ("--output", "pictures"),
    "train_language_model.py": ("--segments", "2", "--output", "pictures"),
    "which_records.py": (),
}

# Of those that train and draw: what their docstrings promise whatever the seed.
LEAST_ACCURACY = {"train_digits.py": 0.96, "train_images.py": 0.85}
THOSE_THAT_DRAW = {*LEAST_ACCURACY, "train_language_model.py"}


def run(script: Path, *args: str, folder: Path) -> list[str]:
    """Run a script as users do, in a folder of its own; return the lines it prints. A warning is an error."""
    command = [sys.executable, "-W", "error", str(script), *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def python_blocks(markdown: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL))


def promised_lines(script: Path) -> list[str]:
    """Return the indented lines of a script's docstring, but for commands."""
    docstring = inspect.cleandoc(script.read_text().split('"""')[1])
    indented = re.findall(r"^    (.*)$", docstring, re.MULTILINE)
    return [line for line in indented if not line.startswith("python ")]


def without_figures(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+(\.\d+)?", "#", line) for line in lines]


@pytest.mark.slow
def test_the_readme_prints_what_its_comments_say(tmp_path: Path) -> None:
    code = python_blocks(README)
    comments = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(comments) == code.count("print(") >= 5
    script = tmp_path / "readme.py"
    script.write_text(code)
    assert run(script, folder=tmp_path) == comments


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_ends_with_the_lines_that_its_docstring_promises(name: str, tmp_path: Path) -> None:
    script = ROOT / "examples" / name
    promised = promised_lines(script)
    assert promised
    printed = run(script, *EXAMPLES[name], folder=tmp_path)[-len(promised) :]
    if name in LEAST_ACCURACY:
        check_accuracy(printed[-2], LEAST_ACCURACY[name])
    if name == "train_language_model.py":
        assert printed[0] == promised[0]  # the shares, exactly
        check_losses(printed[1])
    if name in THOSE_THAT_DRAW:
        check_picture(printed[-1], tmp_path / "pictures")
    if name == "from_tfrecord.py":
        assert float(printed[-1].split()[1]) >= 0.96
    if name == "from_tfrecord.py" or name in THOSE_THAT_DRAW:  # numbers differ a little between machines
        promised, printed = without_figures(promised), without_figures(printed)
        promised = [line.replace("outputs", "pictures") for line in promised]
    assert printed == promised


def check_accuracy(line: str, least: float) -> None:
    match = re.fullmatch(r"test accuracy (\d\.\d{4}) .*", line)
    assert match is not None
    assert float(match[1]) >= least


def check_losses(line: str) -> None:
    match = re.fullmatch(r"loss (\d\.\d\d) at the first step, (\d\.\d\d) at the last", line)
    assert match is not None
    assert float(match[2]) < 0.7 * float(match[1])


def check_picture(line: str, folder: Path) -> None:
    (picture,) = folder.glob("*.png")
    assert line == f"wrote {picture.relative_to(folder.parent)}"
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


def test_links_in_the_readme_lead_somewhere() -> None:
    text = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")]
    assert links
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (ROOT / link).exists(), link


def test_functions_that_the_readme_names_exist_with_these_arguments() -> None:
    calls = set(re.findall(r"(?:(?<=arsrc\.)|(?<![.\w]))([a-z_]+)\(config((?:, [a-z_]+)*)[,)]", README))
    assert len(calls) > 20
    for name, arguments in calls:
        parameters = list(inspect.signature(getattr(arsrc, name)).parameters)
        assert parameters[0] == "config", name
        assert len(arguments.split(", ")) <= len(parameters), (name, arguments)


def modules_with_doctests() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(arsrc.__path__, "arsrc.")]
    return [name for name in ["arsrc", *names] if ">>>" in inspect.getsource(importlib.import_module(name))]


@pytest.mark.parametrize("name", modules_with_doctests())
def test_doctests_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0
