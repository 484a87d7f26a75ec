"""Elements to record bytes: a batch of elements or a stream of them, encoded piece by piece."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.element_tree import array_text, both_sides, leaf_paths, structure_difference
from arsrc.errors import ArsrcError, ArsrcTypeError, ArsrcValueError, said
from arsrc.own_code import raised_at
from arsrc.record_batch import RecordBatch

PIECE_BYTES = 4 * 2**20
"""Elements encoded at once, in bytes; bounds memory."""
PIECE_ELEMENTS = 1024
"""Elements of a stream that are stacked at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class RecordStream:
    """Encoded records in the elements' order.

    Attributes:
        pieces: The records' bytes, some at a time; can be iterated once.
        num_records: How many there will be; None: unknown until the end.
    """

    pieces: Iterator[Sequence[bytes]]
    num_records: int | None


def encode_elements(elements: Any, codec: Codec) -> RecordStream:
    """Return the records of `elements`; nothing is encoded before the records are iterated.

    Args:
        elements: A batch (an array, or a dict, tuple or other PyTree but a list, whose leaves share a leading
            axis), or an iterable (list, generator, ...) of single elements and of `bytes`, which are records
            already.
        codec: Encodes.

    Raises:
        ArsrcTypeError: `elements` is neither; later: an element of an iterable or the codec's encode raises.
        ArsrcValueError: The leaves of a batch have no common leading axis; later: an element differs from the
            first one, or the codec's encode raises.
    """
    if isinstance(elements, (bytes, bytearray, memoryview, str)):
        fix = "Put records into a list: [record, ...]."
        raise ArsrcTypeError("elements", "is a single record", fix, elements=type(elements).__name__)
    if isinstance(elements, Mapping) and jax.tree_util.all_leaves([elements]):
        elements = dict(elements)  # such as numpy.load's file, which is a mapping but no PyTree node
    is_node = not jax.tree_util.all_leaves([elements])
    is_array = hasattr(elements, "shape") and hasattr(elements, "dtype")
    if not isinstance(elements, list) and (is_node or is_array):
        leaves, treedef, num_records = _batch_leaves(elements)
        return RecordStream(_encode_batch(leaves, treedef, num_records, codec), num_records)
    try:
        iterator = iter(elements)
    except TypeError:
        fix = "Pass an iterable of elements, or a PyTree of arrays with a leading axis."
        kind = type(elements).__name__
        raise ArsrcTypeError("elements", "is no batch and no iterable", fix, elements=kind) from None
    return RecordStream(_encode_stream(iterator, codec), len(elements) if hasattr(elements, "__len__") else None)


def _batch_leaves(batch: PyTree) -> tuple[list[NDArray[Any]], Any, int]:
    """Return leaves, tree definition and length of the common leading axis."""
    leaves, treedef = jax.tree_util.tree_flatten(batch)
    arrays: list[NDArray[Any]] = [np.asarray(leaf) for leaf in leaves]
    paths = leaf_paths(batch)
    fix = "All leaves of a batch share the leading axis; pass single elements as a list or a generator."
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim == 0:
            hint = "Give NumPy arrays: JAX takes a list for a tree, and its items for the leaves. "
            raise ArsrcValueError("elements", f"leaf {path} has no leading axis", hint + fix)
        if len(array) != len(arrays[0]):
            lengths = {f"{paths[0]}": len(arrays[0]), f"{path}": len(array)}
            raise ArsrcValueError("elements", "leading axes differ", fix, lengths=lengths)
    if not arrays:
        raise ArsrcValueError("elements", "the batch has no arrays", elements=batch)
    return arrays, treedef, len(arrays[0])


def _encode_batch(leaves: list[NDArray[Any]], treedef: Any, num_records: int, codec: Codec) -> Iterator[list[bytes]]:
    row_bytes = sum(leaf.nbytes for leaf in leaves) // max(1, num_records)
    step = max(1, PIECE_BYTES // max(1, row_bytes))
    for start in range(0, num_records, step):
        piece = [leaf[start : start + step] for leaf in leaves]
        yield _encode_piece(piece, treedef, start, codec)


def _encode_stream(elements: Iterable[Any], codec: Codec) -> Iterator[list[bytes]]:
    first: list[NDArray[Any]] = []
    treedef: Any = None
    pending: list[list[NDArray[Any]]] = []
    pending_bytes = start = 0
    for number, element in enumerate(elements):
        is_record = isinstance(element, bytes)
        if pending and (is_record or pending_bytes >= PIECE_BYTES or len(pending) >= PIECE_ELEMENTS):
            yield _encode_stack(pending, treedef, start, codec)
            pending, pending_bytes, start = [], 0, number
        if is_record:
            yield [element]
            start = number + 1
            continue
        leaves, found = jax.tree_util.tree_flatten(element)
        # Copies, since many generators fill one buffer again and again.
        leaves = [np.array(leaf) for leaf in leaves]
        if treedef is None:
            first, treedef = leaves, found
        _check_alike(number, first, treedef, leaves, found)
        pending.append(leaves)
        pending_bytes += sum(leaf.nbytes for leaf in leaves)
    if pending:
        yield _encode_stack(pending, treedef, start, codec)


def _check_alike(number: int, first: list[NDArray[Any]], treedef: Any, leaves: list[NDArray[Any]], found: Any) -> None:
    """Check that an element of a stream has the first one's structure, shapes and dtypes."""
    where = f"elements, element {number}"
    fix = (
        "Every element of a stream is like the first; give records of different lengths as bytes, encoded by yourself."
    )
    if found != treedef:
        trees = treedef.unflatten(first), found.unflatten(leaves)
        what, sides = structure_difference(*trees)
        raise ArsrcValueError(where, what, f"{sides}\n{fix}")
    for i, (leaf, want) in enumerate(zip(leaves, first, strict=True)):
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            sides = both_sides(array_text(want.dtype, want.shape), array_text(leaf.dtype, leaf.shape))
            what = f"leaf {leaf_paths(treedef.unflatten(first))[i]} differs from the first element's"
            raise ArsrcValueError(where, what, f"{sides}\n{fix}")


def _encode_stack(pending: list[list[NDArray[Any]]], treedef: Any, start: int, codec: Codec) -> list[bytes]:
    piece = [np.stack(column) for column in zip(*pending, strict=True)]
    return _encode_piece(piece, treedef, start, codec, len(pending))


def _encode_piece(
    leaves: list[NDArray[Any]], treedef: Any, start: int, codec: Codec, length: int | None = None
) -> list[bytes]:
    """Encode a batch whose first element is number `start` of all."""
    length = len(leaves[0]) if length is None else length
    try:
        records: RecordBatch = codec.encode(jax.tree_util.tree_unflatten(treedef, leaves))
    except ArsrcError as error:
        error.add_note(f"while encoding the elements {start} to {start + length - 1}")
        raise
    except Exception as error:  # of a codec of the user's own
        what = f"{type(codec).__name__}.encode raised {said(error)}"
        raise ArsrcValueError("codec", what, raised_at(error), first_element=start, num_elements=length) from error
    _check_records(records, length, type(codec).__name__)
    return [records[row] for row in range(length)]


def _check_records(records: Any, length: int, codec: str) -> None:
    """Refuse what is no batch of so many records: wrong offsets would write bytes of others."""
    if not isinstance(records, RecordBatch):
        raise ArsrcTypeError("codec", f"{codec}.encode gave no RecordBatch", records=type(records).__name__)
    data, offsets = np.asarray(records.data), np.asarray(records.offsets)
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        found = both_sides("uint8[n], int64[n]", f"{array_text(data.dtype, data.shape)}, {offsets.dtype}")
        raise ArsrcTypeError("codec", f"{codec}.encode gave data and offsets of other dtypes", found)
    if len(records) != length:
        what = f"{codec}.encode gave another number of records"
        raise ArsrcValueError("codec", what, elements=length, records=len(records))
    if offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
        what = f"{codec}.encode gave offsets that are no places in its data"
        raise ArsrcValueError("codec", what, num_bytes=len(data), offsets=offsets)
