"""Which features a data set has, as its `features.json` says: what each holds, and how it is stored in records."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from arsrc.frozen import Terse

Path = tuple[str, ...]

_PACKAGE = "tensorflow_datasets."
_TEXT = "string"
_IMAGES = ("Image", "LabeledImage")
_OF_ONE_FORM: dict[str, tuple[str, tuple[int, ...]]] = {
    "BBoxFeature": ("float32", (4,)),
    "ClassLabel": ("int64", ()),
    "Text": (_TEXT, ()),
}
_LEAVES = {*_IMAGES, *_OF_ONE_FORM, "Tensor", "Scalar"}


@dataclasses.dataclass(frozen=True, repr=False)
class Feature(Terse):
    """What one entry of an example holds.

    Attributes:
        kind: The class of TFDS that wrote it, as "Image" or "ClassLabel".
        dtype: Dtype of its arrays, "string" for text; empty where the kind is not known here.
        shape: Their shape; None stands for any size.
        sequence_lengths: Of the `Sequence`s around it, the outermost first; None stands for any length.
        encoding: How its arrays are stored where that is no list of numbers: "bytes", "zlib", or an image's format.
        optional: Whether examples may be without it.
        num_classes: Of labels and of images of labels; None if they were never given.
        class_names: The names of the classes, in order, where the data set has them.
    """

    kind: str
    dtype: str = ""
    shape: tuple[int | None, ...] = ()
    _: dataclasses.KW_ONLY
    sequence_lengths: tuple[int | None, ...] = ()
    encoding: str = ""
    optional: bool = False
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it is an image, which a single bytes value holds."""
        return self.kind in _IMAGES

    @property
    def is_text(self) -> bool:
        """Whether it is text, which bytes values hold."""
        return self.dtype == _TEXT

    @property
    def is_known(self) -> bool:
        """Whether it is stored as its fields say."""
        return self.kind in _LEAVES

    def __str__(self) -> str:
        shape = ", ".join("any" if size is None else str(size) for size in self.shape)
        array = f" {self.dtype}[{shape}]" if self.dtype and self.kind != "Text" else ""
        encoding = f", {self.encoding}" if self.encoding else ""
        text = f"{self.kind}{array}{encoding}"
        for length in reversed(self.sequence_lengths):
            text = f"Sequence({text}, length={'any' if length is None else length})"
        return text


def parse_features(content: Any, names: Mapping[str, tuple[str, ...]]) -> dict[Path, Feature]:
    """Return the features by their paths, as they are stored: one for each entry of the examples.

    Args:
        content: What `features.json` holds: in the form of TFDS since 4.5, in the one before, or one in the other.
        names: Names of classes, by the names of the files that hold them, without their ending.

    Raises:
        AttributeError, KeyError, RecursionError, TypeError, ValueError: It is in neither form.
    """
    return dict(_leaves((), "", content, (), names))


def _leaves(
    path: Path, file: str, content: Any, sequence: tuple[int | None, ...], names: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Path, Feature]]:
    """Yield what is stored of one feature; `file` is how TFDS begins the names of files about it."""
    kind, fields = _kind(content)
    if kind == "FeaturesDict":
        for name, inner in fields.get("features", {}).items():
            stem = name.replace("/", ".")
            yield from _leaves((*path, name), f"{file}-{stem}" if file else stem, inner, sequence, names)
    elif kind == "Sequence":
        length = fields.get("length")
        around = (*sequence, None if length is None or int(length) < 0 else int(length))
        yield from _leaves(path, file, fields["feature"], around, names)
    else:
        leaf = _leaf(kind, fields, sequence, names.get(file, ()))
        yield from ((path + below, inner) for below, inner in _stored(leaf))


def _kind(content: Any) -> tuple[str, dict[str, Any]]:
    """Return the class of a feature and what is said of it."""
    name = content.get("pythonClassName") or content["type"]
    fields = content.get("content")
    if fields is None:  # the newer form, in which the entry beside the class's name is named by what it is
        rest = [value for key, value in content.items() if key not in ("pythonClassName", "description", "valueRange")]
        fields = rest[0] if rest else {}
        if "jsonFeature" in content:
            fields = json.loads(fields.get("json", "{}"))
    elif isinstance(fields, str):
        fields = json.loads(fields)
    elif name.endswith(".FeaturesDict") and not content.get("proto_cls"):
        fields = {"features": fields}
    # A class of one's own may store anything, whatever its name.
    return (name.rpartition(".")[2] if name.startswith(_PACKAGE) else name), fields


def _leaf(kind: str, fields: dict[str, Any], sequence: tuple[int | None, ...], names: tuple[str, ...]) -> Feature:
    if kind not in _LEAVES:
        return Feature(kind, sequence_lengths=sequence)
    label = fields.get("label") or {} if kind == "LabeledImage" else fields
    num_classes = label.get("numClasses", label.get("num_classes"))
    shape: tuple[int | None, ...]
    if kind in _OF_ONE_FORM:
        dtype, shape, encoding = *_OF_ONE_FORM[kind], ""
    else:
        is_image = kind in _IMAGES
        shape = _shape(fields.get("shape"), (None, None, 3) if is_image else ())
        dtype = fields.get("dtype") or "uint8" if is_image else fields["dtype"]
        encoding = fields.get("encodingFormat") or fields.get("encoding_format") or fields.get("encoding") or ""
    return Feature(
        kind,
        {"object": _TEXT, "str": _TEXT}.get(dtype, dtype),
        shape,
        sequence_lengths=sequence,
        encoding="" if encoding.lower() == "none" else encoding.lower(),
        optional=bool(fields.get("optional")),
        num_classes=len(names) or (None if num_classes is None else int(num_classes)),
        class_names=names,
    )


def _shape(shape: Any, default: tuple[int | None, ...]) -> tuple[int | None, ...]:
    sizes = shape.get("dimensions", []) if isinstance(shape, dict) else shape or default
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)


def _stored(feature: Feature) -> Iterator[tuple[Path, Feature]]:
    """Yield a feature as TFDS stores it: as itself, or in several entries where its sizes have to be stored too."""
    if not feature.is_known:
        yield (), feature
    elif len(feature.sequence_lengths) > 1:
        depth = len(feature.sequence_lengths)
        yield ("ragged_flat_values",), dataclasses.replace(feature, sequence_lengths=(None,))
        for level in range(depth - 1):
            yield (f"ragged_row_lengths_{level}",), Feature("Tensor", "int64", sequence_lengths=(None,))
    elif feature.kind == "Tensor" and feature.shape.count(None) > 1:
        lengths = Feature("Tensor", "int32", (len(feature.shape),), sequence_lengths=feature.sequence_lengths)
        yield ("shape",), lengths
        yield ("value",), feature
    else:
        yield (), feature
