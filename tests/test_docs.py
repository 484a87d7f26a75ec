"""What the documentation shows is what happens: the code of README and docs/, every example, and the doctests.

How a page is tested, README.md and docs/*.md alike:

* All its blocks ```python, one behind the other, are one script, which runs in an empty folder where a warning is an
  error. Each `print(...)` is one line and ends with the comment `# what it prints`.
* A block that cannot run says why: ```python not run: needs grain. It imports one of PEERS, or has `...` for what the
  reader puts there, or names the file of the test that runs it: ```python not run: see tests/test_tfds.py.
* All else that is fenced is not code of this package: ```text, ```console and so on.
* Links lead to files and headings that are there, functions of a config exist with these arguments, and README.md or
  docs/README.md links the page.
"""

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
PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}

# Whose code pages may show without running it, since the tests do not install them.
PEERS = {"cyreal", "datarax", "grain", "tensorflow", "tensorflow_datasets", "torch"}

# Every example, and the arguments that make its run reproducible.
EXAMPLES = {
    "bad_records.py": (),
    "compressed_files.py": (),
    "equinox_loop.py": (),
    "flax_nnx_loop.py": (),
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


def fenced(page: Path) -> list[tuple[str, str]]:
    """Return the language, with what stands behind it, and the text of each fenced block of a page."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language.strip(), text) for language, text in blocks]


def script_of(page: Path) -> str:
    return "\n".join(text for language, text in fenced(page) if language == "python")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]*)\)", re.sub(r"`[^`]*`", "", prose(page)))
    return [link for link in found if not link.startswith(("https://", "http://"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def promised_lines(script: Path) -> list[str]:
    """Return the indented lines of a script's docstring, but for commands."""
    docstring = inspect.cleandoc(script.read_text().split('"""')[1])
    indented = re.findall(r"^    (.*)$", docstring, re.MULTILINE)
    return [line for line in indented if not line.startswith("python ")]


def without_figures(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+(\.\d+)?", "#", line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if script_of(page)])
def test_a_page_prints_what_its_comments_say(name: str, tmp_path: Path) -> None:
    code = script_of(PAGES[name])
    comments = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(comments) == len(re.findall(r"^ *print\(", code, re.MULTILINE)) >= 1
    script = tmp_path / "page.py"
    script.write_text(code)
    assert run(script, folder=tmp_path) == comments


@pytest.mark.parametrize("name", PAGES)
def test_a_block_of_python_that_is_not_run_says_why(name: str) -> None:
    for language, text in fenced(PAGES[name]):
        if not language.startswith("py") or language == "python":
            continue
        reason = re.fullmatch(r"python not run: (\w.*)", language)
        assert reason is not None, language
        imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
        tests = re.findall(r"tests/\w+\.py", reason[1])
        assert imported & PEERS or "..." in text or any((ROOT / test).exists() for test in tests), text


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


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in links(PAGES[name]):
        file, _, anchor = link.partition("#")
        target = PAGES[name].parent / file if file else PAGES[name]
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_a_landing_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_page_is_linked() -> None:
    starts = [ROOT / "README.md", ROOT / "docs" / "README.md"]
    linked = {(start.parent / link.partition("#")[0]).resolve() for start in starts for link in links(start)}
    assert set(PAGES.values()) - set(starts) <= linked


def calls(page: Path) -> set[tuple[str, str]]:
    """Return names and further arguments of the functions of a config that a page names and does not define."""
    text = page.read_text()
    found = re.findall(r"(?:(?<=arsrc\.)|(?<![.\w]))([a-z_]+)\(config((?:, [a-z_]+)*)[,)]", text)
    return {(name, arguments) for name, arguments in found if f"def {name}(" not in text}


def test_pages_name_functions_that_exist_with_these_arguments() -> None:
    named = {(name, arguments) for page in PAGES.values() for name, arguments in calls(page)}
    assert len(named) > 20
    for name, arguments in named:
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
