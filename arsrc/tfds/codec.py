"""Which codec reads the examples of a data set: what its features say, but for what the user says otherwise."""

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from arsrc.amounts import counted
from arsrc.codecs import Codec, Image, TFExample
from arsrc.codecs.check import array_spec
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.quoted import quoted
from arsrc.tfds.features import Feature, Path
from arsrc.tfds.nested import Nested
from arsrc.tfds.unsigned import Unsigned, stored_spec

_MOST_SHOWN = 40


def codec_of(features: Mapping[Path, Feature], given: Any) -> Codec:
    """Return a codec of examples that hold some features.

    Args:
        features: All that examples hold, by where it stands in them.
        given: Specs by name, as `TFExample` takes them, in place of what the features say; None leaves one out.

    Raises:
        ArsrcTypeError: `given` is no mapping of names.
        ArsrcValueError: It names what is no feature, leaves nothing, or does not say what is in features without a
            fixed shape.
    """
    specs: dict[Path, Any] = {path: spec_of(feature) for path, feature in features.items()}
    unsaid = {path for path, spec in specs.items() if spec is None}
    for name, spec in _checked(given).items():
        paths = _named(name, features)
        unsaid -= set(paths)
        specs |= dict.fromkeys(paths) if spec is None else {_only(name, paths, features, given): spec}
    if unsaid:
        raise _unsaid({"/".join(path): features[path] for path in features if path in unsaid})
    wanted = {path: spec for path, spec in specs.items() if spec is not None}
    if not wanted:
        raise ArsrcValueError("features", "leaves no feature to be read", f"There is {_listed(features)}.")
    unsigned = {path: stored_spec("/".join(path), wanted[path]) for path in wanted if _is_unsigned(features.get(path))}
    unsigned = {path: spec for path, spec in unsigned.items() if spec is not None}
    wanted |= unsigned
    optional = {path: specs[path] for path in wanted if path in features and features[path].optional}
    flat = TFExample(
        {"/".join(path): spec for path, spec in wanted.items()},
        default={"/".join(path): _absent(spec) for path, spec in optional.items() if not isinstance(spec, Codec)},
    )
    codec = Unsigned(flat, tuple("/".join(path) for path in unsigned)) if unsigned else flat
    return Nested(codec, tuple(wanted)) if any(len(path) > 1 for path in wanted) else codec


def _only(name: str, paths: list[Path], features: Mapping[Path, Feature], given: Mapping[str, Any]) -> Path:
    """Return where the feature of a name stands, which a spec was given for."""
    around = "/".join(paths[0])
    if name == around:
        return paths[0]
    if not name.startswith(around) or features[paths[0]].is_known:
        raise ArsrcValueError("features", f"{name!r} is a dict of features", f"There is {_listed(paths)}.")
    if given.get(around) is not None:
        raise ArsrcValueError("features", f"{name!r} lies inside of a feature that has a spec, {around!r}")
    return (*paths[0], name.removeprefix(f"{around}/"))


def _is_unsigned(feature: Feature | None) -> bool:
    """Whether a feature holds integers that lists of an Example hold as those of the other sign."""
    return feature is not None and feature.dtype == "uint64"


def spec_of(feature: Feature) -> Any:
    """Return how `TFExample` reads a feature; None where that is not known, or no array of fixed shape comes of it."""
    sizes = feature.sequence_lengths + feature.shape
    if not feature.is_known or feature.is_text or None in sizes:
        return None
    if feature.is_image:
        return None if feature.sequence_lengths else _image(feature.shape, feature.dtype)
    if feature.encoding:
        return (feature.dtype, sizes) if feature.encoding == "bytes" and not feature.sequence_lengths else None
    return feature.dtype, sizes


def _absent(spec: Any) -> Any:
    """Return what stands for an array that an example is without: the smallest of its numbers, as in TFDS."""
    dtype, shape = array_spec("features", spec)
    is_float = dtype.kind == "f"
    lowest = np.finfo(dtype).min if is_float else np.iinfo(dtype).min if dtype.kind in "iu" else 0
    return np.full(shape, lowest, dtype)


def _image(shape: Any, dtype: str) -> Image | None:
    try:
        return Image(shape, "exact", dtype=dtype)
    except (ArsrcTypeError, ArsrcValueError):  # animated pictures, and floats in pictures of bytes
        return None


def _checked(given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        fix = 'For example features={"image": Image((96, 96, 3)), "id": None}.'
        raise ArsrcTypeError("features", "must be a mapping of names", fix, features=given)
    return given


def _named(name: str, features: Mapping[Path, Feature]) -> list[Path]:
    """Return what a name stands for: a feature, all of a dict, or the feature inside of which it would have to be."""
    names = {"/".join(path): path for path in features}
    if name in names:
        return [names[name]]
    if below := [path for one, path in names.items() if one.startswith(f"{name}/")]:
        return below
    around = [path for one, path in names.items() if name.startswith(f"{one}/") and not features[path].is_known]
    if around:
        return around
    close = difflib.get_close_matches(name, names, 1)
    fix = f"Did you mean {close[0]!r}?" if close else f"There is {_listed(features)}."
    raise ArsrcValueError("features", f"there is no feature {name!r}", fix)


def _unsaid(features: Mapping[str, Feature]) -> ArsrcValueError:
    """Return the error for features that nothing is said of, with the lines to write."""
    lines = [f"    {quoted(name)}: {_advice(feature)},  # {feature}" for name, feature in features.items()]
    if len(lines) > _MOST_SHOWN:
        lines = [*lines[:_MOST_SHOWN], f"    # and {len(lines) - _MOST_SHOWN} more"]
    what = f"{counted(len(features), 'feature')} without a fixed shape, or stored in a way that is not read"
    fix = "Say what they hold, or leave them out with None:\n" + "\n".join(["features={", *lines, "}"])
    return ArsrcValueError("features", what, fix)


def _advice(feature: Feature) -> str:
    """Return a spec that a user could give for a feature."""
    if (
        feature.is_image
        and not feature.sequence_lengths
        and feature.dtype in ("uint8", "uint16")
        and len(feature.shape) == 3
    ):
        dtype = "" if feature.dtype == "uint8" else f", dtype={feature.dtype!r}"
        return f"Image((height, width, {feature.shape[2] or 3}){dtype})"
    if feature.kind == "Text" and not feature.sequence_lengths:
        return 'Ragged("uint8", max_length=...)'
    is_list = feature.is_known and not (feature.is_text or feature.is_image)
    if is_list and not (feature.encoding and (feature.sequence_lengths or feature.encoding != "bytes")):
        return f'Ragged("{feature.dtype}", max_length=...)'
    return "None"


def _listed(paths: Any) -> str:
    names = ["/".join(path) for path in paths]
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + (", ..." if len(names) > _MOST_SHOWN else "")
