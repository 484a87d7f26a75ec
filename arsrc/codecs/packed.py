"""Documents packed into rows of tokens: what rows look like, and where in elements the tokens stand."""

import dataclasses
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.element_tree import ElementTree
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.errors import ArsrcValueError
from arsrc.views.packing import Packing

_VALUES, _LENGTH = "['values']", "['length']"


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows of tokens, which have a spec as the elements of a codec do.

    Attributes:
        codec: Decodes documents; resolved.
        packing: Makes rows of them.
    """

    codec: Codec
    packing: Packing

    def element_spec(self) -> PyTree:
        """Spec of one row, as `Packing` describes it."""
        names = ["positions", "segment_ids", "tokens"]
        names += ["target_segment_ids", "targets"] if self.packing.targets else []
        return {name: jax.ShapeDtypeStruct((self.packing.length,), np.int32) for name in names}


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Rows of several codecs, which have one spec.

    Attributes:
        codecs: What decodes them; resolved.
    """

    codecs: "tuple[Codec | Packed, ...]"

    def element_spec(self) -> PyTree:
        """Spec of one row."""
        return self.codecs[0].element_spec()


@dataclasses.dataclass(frozen=True)
class TokenLeaves:
    """Where the tokens of decoded documents stand, or of records that are tokens as they stand.

    Attributes:
        values: Number of the leaf, integer[max_length].
        length: Number of the leaf that says how many of them a document has; None: it has all of them.
        stored: The codec where the bytes of a record are its tokens, else None.
    """

    values: int
    length: int | None
    stored: Ragged | None

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        """Dtype of the tokens in the bytes of a record, where these are its tokens."""
        return None if self.stored is None else stored_dtype(self.stored.dtype)

    def lengths(self, num_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many tokens records have whose bytes are tokens, i64[num_records].

        Raises:
            RecordError: A record is no whole number of tokens, or has too many.
        """
        assert self.stored is not None
        return np.minimum(self.stored.num_items(num_bytes), self.stored.max_length)


def token_leaves(codec: Codec, tree: ElementTree) -> TokenLeaves:
    """Return where the tokens stand in the elements of a codec.

    Raises:
        ArsrcValueError: There is no one array of tokens.
    """
    shapes, paths = tree.shapes, tree.paths
    rows = [i for i, (shape, dtype) in enumerate(shapes) if len(shape) == 1 and dtype.kind in "iu"]
    pairs = {
        i: paths.index(length)
        for i in rows
        if paths[i].endswith(_VALUES)
        and (length := paths[i].removesuffix(_VALUES) + _LENGTH) in paths
        and shapes[paths.index(length)][0] == ()
        and shapes[paths.index(length)][1].kind in "iu"
    }
    found = list(pairs) or rows
    if len(found) != 1:
        there = ", ".join(paths[i] for i in found) or "none"
        what = f"packs one array of tokens, and the elements of {type(codec).__name__} have {len(found)}"
        fix = "Let the codec give one array of integers with one axis, or one field of variable length: Ragged, say."
        raise ArsrcValueError("pack", what, fix, arrays=there)
    return TokenLeaves(found[0], pairs.get(found[0]), codec if isinstance(codec, Ragged) else None)
