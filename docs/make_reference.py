"""Write docs/reference.md from the docstrings: `make reference`.

Types and defaults stand in the page as they are written in the source, so that it is the same on any Python and JAX.
"""

import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import arsrc

PAGE = Path(__file__).with_name("reference.md")

GROUPS = {
    "Configs and types": "ArrayRecordSourceConfig ReadOptions MixtureConfig Packing Selection SourceState Batch",
    "Batches": "init next_batch next_batches peek batch_at take",
    "Arithmetic of states": (
        "advance state_at step_of is_exhausted record_ids batch_mask record_keys locate source_counts source_ids"
    ),
    "Sizes and specs": "num_records steps_per_epoch total_steps element_spec batch_spec",
    "Loops": "scan_epoch scan_steps iterate",
    "Devices and hosts": "next_global_batch load_resident",
    "Selections and origins": "select_records origin Origin",
    "Checkpoints": "to_state_dict from_state_dict fingerprint check",
    "Files": "write_array_record read_records bad_records BadRecords",
    "What is read, and how fast": "explain io_metrics close reset_cache",
    "Statistics": "operation_stats compute_statistics get_statistics dataset_statistics LeafStatistics",
    "Streams of keys": "requires_rng_streams ensure_rng_streams",
    "Errors": (
        "ArsrcError ArsrcValueError ArsrcTypeError ArsrcIndexError ArsrcFileNotFoundError ArsrcReadError "
        "ArsrcWriteError RecordError"
    ),
    "Codecs": (
        "codecs.Bytes codecs.Struct codecs.Ragged codecs.Image codecs.TFExample codecs.MsgPack codecs.Json codecs.Npy "
        "codecs.Npz codecs.Map codecs.MapBatch"
    ),
    "Codecs of your own": "codecs.Codec codecs.RecordBatch codecs.check_batch",
    "Folders of TFDS": "tfds.source tfds.info tfds.even_splits tfds.DatasetInfo tfds.EvenSplit tfds.Feature",
}
WITH_METHODS = ("Selection", "codecs.Codec", "codecs.RecordBatch")
"""Classes whose methods are for users; those of the others are what every codec or dataclass has."""

HEAD = """# Reference

Every public name, from its docstring; the other pages explain. Configs and states come first in all calls, in this
order. Functions are pure and traceable unless they say "host". Made by `make reference`: edit the docstrings.
"""

_WIDEST = 100  # characters of a signature on one line
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


class AsWritten(str):
    """A piece of source text, whose repr is the text."""

    __slots__ = ()
    __repr__ = str.__str__


def names() -> list[str]:
    """Return the public names, in the order of the page."""
    return [name for group in GROUPS.values() for name in group.split()]


def page() -> str:
    """Return the text of the page."""
    contents = [
        f"* [{group}](#{anchor(group)}): " + " · ".join(f"[`{name}`](#{anchor(title(name))})" for name in text.split())
        for group, text in GROUPS.items()
    ]
    parts = [HEAD, "\n".join(contents)]
    for group, text in GROUPS.items():
        parts.append(f"## {group}")
        for name in text.split():
            parts += entry(name)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def title(name: str) -> str:
    """Return the heading of a name."""
    return f"class `{name}`" if inspect.isclass(found(name)) else f"`{name}`"


def anchor(heading: str) -> str:
    """Return what GitHub makes of a heading for links."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def found(name: str) -> Any:
    """Return what a public name stands for."""
    return functools.reduce(getattr, name.split("."), arsrc)


def entry(name: str) -> Iterator[str]:
    """Yield the blocks of one name: heading, signature, docstring."""
    target = found(name)
    yield f"### {title(name)}"
    if shown := signature_of(name):
        yield f"```text\n{shown}\n```"
    elif issubclass(target, Exception):
        yield "Derives from " + ", ".join(f"`{base.__name__}`" for base in target.__bases__) + "."
    yield from markdown(inspect.cleandoc(target.__doc__))
    if name in WITH_METHODS:
        for method, value in vars(target).items():
            if not method.startswith("_") and getattr(value, "__doc__", None) and method in functions_of(target):
                yield f"**`{method}{own_signature(value)}`**"
                yield from markdown(inspect.cleandoc(value.__doc__))


def signature_of(name: str) -> str:
    """Return the signature of a name; nothing for errors and protocols, which are not called."""
    target = found(name)
    is_called = not inspect.isclass(target) or not (issubclass(target, Exception) or Protocol in target.__bases__)
    return signature(name, target) if is_called else ""


def own_signature(method: Any) -> str:
    """Return the parameters of a method but for the first; nothing for a property."""
    if isinstance(method, property):
        return ""
    function = getattr(method, "__func__", method)
    as_read = inspect.signature(function)
    given = as_read.replace(parameters=list(as_read.parameters.values())[1:])
    return signature("", function, given)


def signature(name: str, target: Any, given: inspect.Signature | None = None) -> str:
    """Return the signature of a function or class, types and defaults as they are written."""
    given = inspect.signature(target) if given is None else given
    types, defaults, result = written_of_class(target) if inspect.isclass(target) else written(target)
    parameters = [
        one.replace(annotation=types.get(one.name, one.empty), default=defaults.get(one.name, one.empty))
        for one in given.parameters.values()
    ]
    ending = f" -> {result}" if result else ""
    short = f"{name}{inspect.Signature(parameters)}{ending}"
    if len(short) <= _WIDEST:
        return short
    lines = [str(one) for one in parameters]
    kinds = [one.kind for one in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        lines.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){ending}"


Written = tuple[dict[str, AsWritten], dict[str, AsWritten], str]


def written(function: Callable[..., Any]) -> Written:
    """Return the types and the defaults of a function's parameters, and the type of its result."""
    source, node = definition(function)
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{function} is no function")
    positional = node.args.posonlyargs + node.args.args
    pairs = [*zip(positional[::-1], node.args.defaults[::-1], strict=False)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    more = [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    every = positional + node.args.kwonlyargs + more
    types = {one.arg: text_of(source, one.annotation, is_type=True) for one in every if one.annotation is not None}
    defaults = {one.arg: text_of(source, default) for one, default in pairs if default is not None}
    return types, defaults, text_of(source, node.returns, is_type=True) if node.returns is not None else ""


def written_of_class(target: type) -> Written:
    """Return the types and the defaults of a dataclass's fields, those of its bases too."""
    types: dict[str, AsWritten] = {}
    defaults: dict[str, AsWritten] = {}
    for base in reversed(target.__mro__):
        if not base.__module__.startswith("arsrc"):
            continue
        source, node = definition(base)
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
        for field in fields:
            value = field.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "dataclasses.field":
                value = next((one.value for one in value.keywords if one.arg == "default"), None)
            types[field.target.id] = text_of(source, field.annotation, is_type=True)
            if value is not None:
                defaults[field.target.id] = text_of(source, value)
    return types, defaults, ""


@functools.cache
def parsed(module: str) -> tuple[str, ast.Module]:
    """Return the source of a module, and its tree."""
    source = inspect.getsource(sys.modules[module])
    return source, ast.parse(source)


def definition(target: Any) -> tuple[str, Any]:
    """Return the source of the module in which a function or class is defined, and the node that defines it."""
    source, node = parsed(target.__module__)
    for name in target.__qualname__.split("."):
        node = next(one for one in node.body if getattr(one, "name", None) == name)
    return source, node


def functions_of(target: type) -> set[str]:
    """Return the names of the functions that stand in a class's definition."""
    return {one.name for one in definition(target)[1].body if isinstance(one, ast.FunctionDef)}


def text_of(source: str, node: ast.expr, is_type: bool = False) -> AsWritten:
    """Return a piece of source text on one line, without the quotes of a type that is named before it is defined."""
    if isinstance(node, ast.Constant) and is_type and isinstance(node.value, str):
        return AsWritten(node.value)
    return AsWritten(" ".join((ast.get_source_segment(source, node) or "").split()))


def markdown(docstring: str) -> Iterator[str]:
    """Yield the blocks of a docstring in Google style as Markdown."""
    text, *rest = _SECTION.split(docstring + "\n")
    yield from prose(text)
    for heading, body, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        yield f"**{heading}**"
        body = textwrap.dedent(body).strip()
        yield from prose(body) if heading == "Returns" else [listed(body)]
        yield from prose(text)


def listed(body: str) -> str:
    """Return the entries `name: what it is` of a section as a list."""
    pairs = [" ".join(one.split()).split(": ", 1) for one in re.split(r"\n(?=\S)", body)]
    return "\n".join(f"* `{name}`: {escaped(text)}" for name, text in pairs)


def prose(text: str) -> Iterator[str]:
    """Yield paragraphs; code that is indented, and doctests, stay as they are."""
    for block in re.split(r"\n{2,}", text.strip("\n")) if text.strip() else ():
        if block.startswith((">>>", "    ")):
            yield f"```text\n{textwrap.dedent(block)}\n```"
        else:
            yield escaped(block)


def escaped(text: str) -> str:
    """Return text whose stars and angle brackets Markdown takes for what they are."""
    pieces = re.split(r"(`[^`]*`)", text)
    plain = re.compile(r"(?<!^)(?<!\n)([*<])")  # but for the star in front of an item of a list
    return "".join(piece if piece.startswith("`") else plain.sub(r"\\\1", piece) for piece in pieces)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
