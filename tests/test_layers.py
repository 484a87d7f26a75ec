"""Layers: arrows between modules run down, JAX stays in front of the bridge, files and threads behind it."""

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import arsrc

Graph = Mapping[str, Collection[str]]

PACKAGE = Path(arsrc.__file__).parent
TREES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        file.read_text()
    )
    for file in PACKAGE.rglob("*.py")
}
FOLDERS = sorted(".".join(file.parent.relative_to(PACKAGE.parent).parts) for file in PACKAGE.rglob("__init__.py"))

# From the top down; what stands in a line may import what stands in later ones. `folder.*` is all that lies in it.
FLOORS = [
    "arsrc.__main__",
    "arsrc.cli.*",
    "arsrc.cli.inputs.*",
    "arsrc",
    "arsrc.scan",
    "arsrc.iterate",
    "arsrc.mesh",
    "arsrc.checkpoint",
    "arsrc.origin",
    "arsrc.statistics",
    "arsrc.mixtures",
    "arsrc.select_records",
    "arsrc.writing",
    "arsrc.tfds.*",
    "arsrc.fetch",
    "arsrc.explain",
    "arsrc.read_records",
    "arsrc.open_paths",
    "arsrc.bad_records",
    "arsrc.sizes",
    "arsrc.state",
    "arsrc.devices.*",
    "arsrc.bridge",
    "arsrc.bridge_in_place",
    "arsrc.host_call",
    "arsrc.programs",
    "arsrc.slow_loops",
    "arsrc.keys",
    "arsrc.types",
    "arsrc.any_config",
    "arsrc.mixture_config",
    "arsrc.config",
    "arsrc.selection",
    "arsrc.codecs.*",
    "arsrc._host",
    "arsrc._host.registry",
    "arsrc._host.open_source",
    "arsrc._host.groups",
    "arsrc._host.open_files",
    "arsrc._host.decoded",
    "arsrc._host.serving.*",
    "arsrc._host.processes.*",
    "arsrc._host.records.*",
    "arsrc._host.images.*",
    "arsrc._host.readers.*",
    "arsrc._host.format.*",
    "arsrc._host.storage.*",
    "arsrc._host.machine.*",
    "arsrc.views.*",
    "arsrc.order.*",
    "arsrc.record_batch",
    "arsrc.advice",
    "arsrc.amounts",
    "arsrc.quoted",
    "arsrc.frozen",
    "arsrc.own_code",
    "arsrc.errors",
]

# What runs inside callbacks, and all that it uses: no chain of imports leads from here to JAX.
WITHOUT_JAX = FLOORS[FLOORS.index("arsrc._host") :]
JAX = {"jax", "jaxlib", "chex"}

# In front of the bridge, these modules alone touch files, by these means.
FILES_IN_FRONT = {
    "arsrc.writing": {"os"},
}
IMPURE = {
    "array_record", "asyncio", "atexit", "builtins", "concurrent", "ctypes", "fcntl", "glob", "importlib", "io", "mmap",
    "multiprocessing", "pathlib", "queue", "resource", "select", "shutil", "signal", "socket", "subprocess", "tempfile",
    "threading", "weakref",
}  # fmt: skip
OF_MEMORY = {"io.BytesIO"}  # a file that is none
PURE_OF_OS = {"os.fspath", "os.PathLike"}
FILES_OF_NUMPY = {"fromfile", "load", "loadtxt", "memmap", "save", "savetxt", "savez", "tofile"}

# The operating system is asked for files in one module; what others use of it asks for none.
SEAM = "arsrc._host.storage.system"
ASKS_FOR_NO_FILE = {
    "os.PathLike", "os.cpu_count", "os.fspath", "os.getpid", "os.nice", "os.path", "os.register_at_fork",
    "os.sched_getaffinity", "os.sep", "os.stat_result", "os.strerror", "os.sysconf", "os.sysconf_names", "os.fsencode",
    "os.O_APPEND", "os.O_CREAT", "os.O_NOFOLLOW", "os.O_NONBLOCK", "os.O_RDONLY", "os.O_RDWR", "os.O_TRUNC",
    "os.O_WRONLY", "os.path.abspath", "os.path.basename", "os.path.dirname", "os.path.expanduser", "os.path.isabs",
    "os.path.join", "os.path.samestat", "os.path.split", "glob.has_magic", "mmap.MADV_RANDOM", "mmap.MADV_WILLNEED",
    "mmap.PAGESIZE", "io.BytesIO",
}  # fmt: skip
ASKS_FOR_FILES = {"fcntl", "glob", "io", "mmap", "os", "pathlib", "shutil", "tempfile"}
BESIDE_THE_SEAM = {
    "arsrc._host.machine.memory": {"pathlib.Path"},  # what the system says of itself
    "arsrc._host.processes.worker": {"mmap.mmap", "os._exit", "os.getppid"},  # another process, without the package
}

OF_NUMPY = {f"np.{name}" for name in FILES_OF_NUMPY}

CALLBACKS = {"io_callback", "buffer_callback", "pure_callback", "debug_callback", "debug.callback"}


# What is read out of the modules.


def imports(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported at run time, in functions too, but not for type checking alone."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING"):
        for node in tree.orelse:
            yield from imports(node)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    if isinstance(tree, ast.ImportFrom):
        yield from (f"{'.' * tree.level}{tree.module or ''}.{alias.name}" for alias in tree.names)
    for node in ast.iter_child_nodes(tree):
        yield from imports(node)


def folders_of(module: str) -> set[str]:
    """The folders that a module lies in, whose `__init__` runs before it; but for the package itself."""
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(2, len(parts))}


def import_graph(trees: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """Which modules each module imports: those of the package, and the others by their first name.

    Who imports `arsrc.order.plan` also runs `arsrc/order/__init__.py`. `arsrc/__init__.py` does not count: it has
    run whenever anything of the package does, and imports everything.
    """
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        found: set[str] = set()
        for name in imports(tree):
            target = name
            while target not in trees and "." in target:
                target = target.rpartition(".")[0]
            found |= {target, *folders_of(target)} if target in trees else {target}
        graph[module] = found - folders_of(module) - {module}
    return graph


def impure(tree: ast.AST) -> set[str]:
    """By what a module touches files, threads or the system."""
    names = list(imports(tree))
    found = IMPURE & {name.partition(".")[0] for name in names if name not in OF_MEMORY}
    dotted = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    if any(name.startswith("os.") and name not in PURE_OF_OS for name in [*dotted, *names]):
        found.add("os")
    if FILES_OF_NUMPY & {name.rpartition(".")[2] for name in dotted}:
        found.add("numpy")
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return found | {"open", "__import__"} & set(called)


def past_the_seam(tree: ast.AST) -> set[str]:
    """By what a module asks for files without going through the one seam."""
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {name for name in used if name.partition(".")[0] in ASKS_FOR_FILES} - ASKS_FOR_NO_FILE
    named = {name for name in imports(tree) if "." in name and name.partition(".")[0] in ASKS_FOR_FILES}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    by_numpy = {name for name in called if name.endswith(".tofile") or name in OF_NUMPY}
    return used | by_numpy | (named - ASKS_FOR_NO_FILE - OF_MEMORY) | ({"open"} & called)


# What is found in a graph.


def floor_of(module: str, floors: Sequence[str]) -> list[int]:
    """The numbers of the floors that a module is on."""
    # A folder that has a floor of its own is not on that of the folder it lies in.
    own = f"{module}.*"
    names = {module, own if own in floors else f"{module.rpartition('.')[0]}.*"}
    return [number for number, floor in enumerate(floors) if floor in names]


def upward(graph: Graph, floors: Sequence[str]) -> list[str]:
    """The arrows between modules that run from one floor up to another."""
    arrows = [(module, other) for module in graph for other in graph[module] if other in graph]
    return sorted(f"{a} -> {b}" for a, b in arrows if floor_of(b, floors) < floor_of(a, floors))


def misplaced(modules: Collection[str], floors: Sequence[str]) -> list[str]:
    """Modules that are not on one floor, and floors that there are no modules on: somebody moved a file."""
    counts = {module: floor_of(module, floors) for module in modules}
    used = {number for numbers in counts.values() for number in numbers}
    wrong = [module for module, numbers in counts.items() if len(numbers) != 1]
    return sorted(wrong + [floor for number, floor in enumerate(floors) if number not in used])


def chain(graph: Graph, start: str, goals: Collection[str]) -> list[str]:
    """A shortest chain of imports from a module to one of the goals; empty if there is none."""
    chains, seen = [[start]], {start}
    for path in chains:
        if path[-1] in goals:
            return path
        onward = set(graph.get(path[-1], ())) - seen
        seen |= onward
        chains.extend([*path, other] for other in sorted(onward))
    return []


def circle(graph: Graph) -> list[str]:
    """A circle of imports, its first module at both ends; empty if there is none."""
    ways = (chain(graph, other, {start}) for start in sorted(graph) for other in sorted(graph[start]))
    way = next(filter(None, ways), [])
    return [*way[-1:], *way]


def with_folders(graph: Graph) -> dict[str, set[str]]:
    """The graph with arrows from each module to the folders it lies in, which have run before it."""
    return {module: {*others, *folders_of(module)} for module, others in graph.items()}


def folded(graph: Graph, depth: int) -> dict[str, set[str]]:
    """The graph of the folders: names are cut to `depth` parts, and what lies in one folder is one."""
    short = lambda name: ".".join(name.split(".")[:depth])  # noqa: E731
    arrows: dict[str, set[str]] = {short(module): set() for module in graph}
    for module, others in graph.items():
        arrows[short(module)] |= {short(other) for other in others} - {short(module)}
    return arrows


# What must hold of the package.

GRAPH = import_graph(TREES)
HOST = [module for module in TREES if module.startswith("arsrc._host")]


def on(floors: Sequence[str]) -> list[str]:
    return sorted(module for module in TREES if floor_of(module, floors))


def test_every_module_is_on_one_floor_and_every_floor_has_modules():
    assert not misplaced(TREES, FLOORS)


def test_arrows_between_floors_run_down():
    assert not upward(GRAPH, FLOORS)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_imports_have_no_circle_among_modules_nor_among_folders(depth: int):
    assert not circle(folded(GRAPH, depth))


def test_all_that_lies_behind_the_bridge_and_all_that_the_order_is_made_of_is_without_jax():
    assert set(on(WITHOUT_JAX)) >= set(HOST)
    assert set(WITHOUT_JAX) >= {f"arsrc.{name}" for name in ("order.*", "record_batch", "frozen", "errors")}


@pytest.mark.parametrize("module", on(WITHOUT_JAX))
def test_no_chain_of_imports_leads_from_behind_the_bridge_to_jax(module: str):
    assert not chain(with_folders(GRAPH), module, JAX)


def test_a_process_that_imports_only_what_lies_behind_the_bridge_has_no_jax():
    # Sees what others' packages import too. The package stands in for its __init__, which imports everything.
    code = f"""
import importlib, sys, types
package = types.ModuleType("arsrc")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["arsrc"] = package
for module in {on(WITHOUT_JAX)!r}:
    importlib.import_module(module)
assert "array_record" not in sys.modules
print(*sorted({JAX!r} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("module", sorted(set(TREES) - set(HOST)))
def test_files_and_threads_are_only_behind_the_bridge_and_where_paths_and_writing_need_them(module: str):
    assert impure(TREES[module]) == FILES_IN_FRONT.get(module, set())


@pytest.mark.parametrize("module", sorted(set(TREES) - {SEAM}))
def test_files_are_asked_for_through_the_one_seam(module: str):
    assert past_the_seam(TREES[module]) <= BESIDE_THE_SEAM.get(module, set())


def test_the_modules_that_touch_files_in_front_of_the_bridge_are_there():
    assert set(TREES) >= set(FILES_IN_FRONT)


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_are_absolute(module: str):
    assert not [name for name in imports(TREES[module]) if name.startswith(".")]


def test_every_folder_says_in_a_line_of_its_own_which_question_it_answers():
    lines = {folder: (ast.get_docstring(TREES[folder]) or "").partition("\n")[0] for folder in FOLDERS}
    assert len(set(lines.values())) == len(lines)
    for folder, line in lines.items():
        assert line.endswith("."), folder
        question = line.replace(":", " ").split()[0]
        assert folder == "arsrc" or question in {"When", "What", "How", "Where", "Which"}, f"{folder}: {line}"


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_module_says_in_its_first_line_what_it_is(module: str):
    assert ast.get_docstring(TREES[module])


def test_no_module_has_a_name_that_says_nothing():
    empty = {"utils", "util", "helpers", "common", "misc", "core", "base_utils"}
    assert not empty & {module.rpartition(".")[2] for module in TREES}


# What must hold of what modules do.


def callbacks(tree: ast.AST) -> set[str]:
    """Which kinds of JAX's callbacks a module names."""
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Name))}
    return {kind for kind in CALLBACKS for name in names | set(imports(tree)) if f".{name}".endswith(f".{kind}")}


CALLBACKS_OF_THE_BRIDGE = {"arsrc.bridge": "io_callback", "arsrc.bridge_in_place": "buffer_callback"}


@pytest.mark.parametrize("module", sorted(TREES))
def test_callbacks_are_only_in_the_two_paths_of_the_bridge(module: str):
    allowed = CALLBACKS_OF_THE_BRIDGE.get(module)
    assert callbacks(TREES[module]) == ({allowed} if allowed else set())


@pytest.mark.parametrize("module", CALLBACKS_OF_THE_BRIDGE)
def test_each_path_of_the_bridge_has_one_call(module: str):
    calls = [
        node
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(CALLBACKS_OF_THE_BRIDGE[module])
    ]
    assert len(calls) == 1


@pytest.mark.parametrize("module", sorted(TREES))
def test_parts_of_jax_that_may_change_are_only_in_the_fast_path_of_the_bridge(module: str):
    inner = {".".join(name.split(".")[:2]) for name in imports(TREES[module])}
    inner &= {"jax._src", "jax.core", "jax.extend", "jax.interpreters"}
    assert not inner or module == "arsrc.bridge_in_place"


def loops_under_locks(tree: ast.AST) -> Iterator[int]:
    """The lines of loops and comprehensions that branch, where a lock is held by a `with` of the same function."""

    def within(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.Lambda, ast.GeneratorExp)):  # these have frames of their own
                yield from within(child)

    loops = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)
    branches = (ast.If, ast.IfExp, ast.BoolOp, ast.Break, ast.Continue, ast.While)
    for held in ast.walk(tree):
        if isinstance(held, ast.With) and any(LOCK.search(ast.unparse(item.context_expr)) for item in held.items):
            for loop in (node for statement in held.body for node in within(statement) if isinstance(node, loops)):
                generators = getattr(loop, "generators", ())
                if any(one.ifs for one in generators) or any(isinstance(node, branches) for node in within(loop)):
                    yield loop.lineno


LOCK = re.compile(r"lock\b|_growing\b|_loading\b|_starting\b")


@pytest.mark.parametrize("module", HOST)
def test_loops_that_branch_have_a_function_of_their_own_where_a_lock_is_held(module: str):
    # Since Python 3.13, an interrupt as such a loop jumps back passes by the `with` around it: the lock stays held.
    assert not list(loops_under_locks(TREES[module]))


PRINTS = "arsrc.cli.tables"  # for all commands


@pytest.mark.parametrize("module", sorted(set(TREES) - {PRINTS}))
def test_the_library_does_not_print_or_log_on_its_own(module: str):
    called = {ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)}
    assert not called & {"print", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "warnings.warn"}


OWN_ERRORS = sorted(name for name in set(TREES) - set(HOST) if not name.startswith("arsrc.views"))


@pytest.mark.parametrize("module", OWN_ERRORS)  # in the others, private kinds are raised and caught again
def test_errors_raised_in_front_of_the_bridge_are_the_librarys_own(module: str):
    tries = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Try)]
    caught = {inner for node in tries for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node not in caught:
            kind = ast.unparse(node.exc.func).rpartition(".")[2]
            assert kind.startswith("Arsrc") or kind == "RecordError" or kind.islower(), f"line {node.lineno}"


# The checks themselves, on small packages that are made up: each finds what it is there for.


def made_up(**sources: str) -> dict[str, ast.AST]:
    """Modules by name, `__` for a dot."""
    return {f"arsrc.{name.replace('__', '.')}": ast.parse(source) for name, source in sources.items()}


def test_jax_is_found_behind_two_other_modules():
    graph = import_graph(
        made_up(
            a="from arsrc.b import x", b="def f():\n    import arsrc.c", c="import jax.numpy as jnp", d="import numpy"
        )
    )
    assert chain(graph, "arsrc.a", JAX) == ["arsrc.a", "arsrc.b", "arsrc.c", "jax"]
    assert chain(graph, "arsrc.d", JAX) == []


def test_jax_is_found_in_the_init_of_a_folder_that_a_module_lies_in():
    sources = made_up(a="from arsrc.f.b import x", f="from arsrc.f.c import y", f__b="", f__c="import chex")
    graph = with_folders(import_graph(sources))
    assert chain(graph, "arsrc.a", JAX) == ["arsrc.a", "arsrc.f", "arsrc.f.c", "chex"]
    assert chain(graph, "arsrc.f.b", JAX) == ["arsrc.f.b", "arsrc.f", "arsrc.f.c", "chex"]


def test_imports_for_type_checking_are_no_arrows_and_those_beside_them_are():
    source = "if TYPE_CHECKING:\n    import jax\nelse:\n    import numpy"
    assert import_graph(made_up(a=source)) == {"arsrc.a": {"numpy"}}


def test_the_package_itself_counts_where_it_is_imported_by_name():
    graph = import_graph({"arsrc": ast.parse("from arsrc import a"), **made_up(a="from arsrc import init")})
    assert circle(graph) == ["arsrc", "arsrc.a", "arsrc"]


def test_an_arrow_that_runs_up_is_found_and_one_that_runs_down_is_not():
    graph = {"p.top": {"p.f.a"}, "p.f.a": {"p.f.b"}, "p.f.b": set(), "p.low": {"p.f.a", "numpy"}}
    assert upward(graph, ["p.top", "p.f.*", "p.low"]) == ["p.low -> p.f.a"]
    assert upward(graph, ["p.low", "p.top", "p.f.*"]) == []
    assert upward({"p.f": {"p.f.a"}, "p.f.a": {"p.top"}, "p.top": set()}, ["p.top", "p.f.*"]) == ["p.f.a -> p.top"]


def test_files_that_have_moved_or_are_new_are_found():
    assert misplaced(["p.a", "p.f", "p.f.b"], ["p.a", "p.f.*"]) == []
    assert misplaced(["p.moved", "p.f.b"], ["p.a", "p.f.*"]) == ["p.a", "p.moved"]
    assert misplaced(["p.a", "p.f.g.b"], ["p.a", "p.f.*"]) == ["p.f.*", "p.f.g.b"]
    assert misplaced(["p.f.b"], ["p.f.b", "p.f.*"]) == ["p.f.b"]


def test_a_circle_is_found_among_modules():
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": {"numpy"}}) == []


def test_a_circle_is_found_among_folders_whose_modules_have_none():
    graph = {"p.f.a": {"p.g.a"}, "p.g.a": set(), "p.g.b": {"p.f.b"}, "p.f.b": set()}
    assert circle(graph) == []
    assert circle(folded(graph, 2)) == ["p.f", "p.g", "p.f"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nx = os.fspath(p)", set()),
        ("import os\nos.path.exists(p)", {"os"}),
        ("from os import remove", {"os"}),
        ("from array_record.python import array_record_module", {"array_record"}),
        ("def f():\n    import threading", {"threading"}),
        ("open(p)", {"open"}),
        ("np.memmap(p)", {"numpy"}),
        ("__import__('os')", {"__import__"}),
        ("state.open(p)", set()),
    ],
)
def test_what_touches_files_or_threads_is_found(source: str, found: set[str]):
    assert impure(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nos.path.join(a, b)", set()),
        ("import os\nos.path.exists(p)", {"os.path.exists"}),
        ("import os\nos.replace(p, q)", {"os.replace"}),
        ("from os import remove", {"os.remove"}),
        ("from os.path import isfile", {"os.path.isfile"}),
        ("import glob\nglob.glob(p)", {"glob.glob"}),
        ("import mmap\nmmap.mmap(f, 3)", {"mmap.mmap"}),
        ("from pathlib import Path", {"pathlib.Path"}),
        ("open(p)", {"open"}),
        ("np.memmap(p)", {"np.memmap"}),
        ("a.tofile(p)", {"a.tofile"}),
        ("isinstance(a, np.memmap)", set()),
        ("system.calls.open(p)", set()),
    ],
)
def test_what_asks_for_files_past_the_seam_is_found(source: str, found: set[str]):
    assert past_the_seam(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "num_loops"),
    [
        ("with self._lock:\n    [a for a in b if a]", 1),
        ("with self._lock:\n    for a in b:\n        if a:\n            break", 1),
        ("with self._lock:\n    while a and b:\n        c()", 1),
        ("with self._lock:\n    [a for a in b]\n    list(a for a in b if a)\n    f(lambda: [a for a in b if a])", 0),
        ("with self._folder:\n    [a for a in b if a]", 0),
    ],
)
def test_a_loop_that_branches_under_a_lock_is_found(source: str, num_loops: int):
    assert len(list(loops_under_locks(ast.parse(source)))) == num_loops


@pytest.mark.parametrize(
    "source",
    ["from jax.experimental import io_callback", "jax.pure_callback(f, s)", "from jax import debug\ndebug.callback(f)"],
)
def test_a_callback_is_found(source: str):
    assert len(callbacks(ast.parse(source))) == 1
