"""What codecs of a user's own function share: the function, and the spec of what it gives."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.stopping import is_for_process
from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_dtype, array_spec, is_pair
from arsrc.codecs.element_tree import NUMPY_ONLY, ElementTree, array_text, leaf_paths, tree_text
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError, said
from arsrc.frozen import Terse
from arsrc.own_code import ByNames, raised_at

T = TypeVar("T")

_ARRAYS = "Give numbers and NumPy arrays of them."


@dataclasses.dataclass(frozen=True, repr=False)
class FunctionCodec(Terse):
    """Base of `Map` and `MapBatch`: a function, a spec, and what tells both apart from others.

    Attributes:
        fn: From the bytes of records to elements.
        spec: PyTree of one element's arrays; None: not known yet.
        encode_fn: The inverse of `fn`, if there is one.
        version: Text that stands for the code of `fn`.
    """

    fn: Callable[[Any], PyTree]
    # Compared through its flat form: trees of dicts cannot be hashed.
    spec: PyTree = dataclasses.field(default=None, compare=False)
    encode_fn: Callable[[PyTree], Any] | None = None
    version: str | None = None
    _tree: ElementTree | None = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        _check_function(f"{name}.fn", self.fn)
        if self.encode_fn is not None:
            _check_function(f"{name}.encode_fn", self.encode_fn)
        if not isinstance(self.version, str | None):
            raise ArsrcTypeError(f"{name}.version", "must be a text", version=self.version)
        tree = None if self.spec is None else _tree(f"{name}.spec", self.spec)
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "spec", tree and tree.spec)

    def __reduce__(self) -> tuple[Any, ...]:
        # Tree definitions with nodes of the user's own cannot be pickled, trees of them can.
        return type(self), (self.fn, self.spec, self.encode_fn, self.version)

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs: not what encodes them."""
        function = self.fn if self.version is None else (ByNames(self.fn), self.version)
        return function, self._known().paths, self._known().shapes

    def _shown(self, field: str) -> str:
        return tree_text(self.spec) if field == "spec" else super()._shown(field)

    def element_spec(self) -> PyTree:
        """Spec of one element: `spec`, with `jax.ShapeDtypeStruct` leaves.

        Raises:
            ArsrcValueError: The spec is not known yet.
        """
        tree = self._known()
        return tree.treedef.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in tree.shapes])

    def _known(self) -> ElementTree:
        if self._tree is None:
            fix = "Call resolve(first_record), or give spec."
            raise ArsrcValueError(f"{type(self).__name__}.spec", "is not known yet", fix)
        return self._tree

    def _with_spec_of(self, give: Callable[[Any], PyTree], first: Any, lead: tuple[int, ...]) -> Self:
        """Return the codec with the spec of what `give` gives for `first`: arrays with the axes `lead` in front.

        Raises:
            RecordError: `give` raises, or gives something that is no array, or has not these axes.
        """
        leaves: list[Any]
        treedef: Any
        element, (leaves, treedef) = called(give, first, 0, jax.tree_util.tree_flatten)
        if not leaves:
            raise RecordError(0, f"{name_of(self.fn)} gives no array", "Give a PyTree of NumPy arrays.")
        specs = [_spec_of(*named, lead) for named in zip(leaf_paths(element), leaves, strict=True)]
        return dataclasses.replace(self, spec=treedef.unflatten(specs))


def called(fn: Callable[[Any], Any], argument: Any, row: int, flatten: Callable[[Any], T]) -> tuple[PyTree, T]:
    """Return what a user's function gives for a record, and this flattened, which may be the user's code as well.

    Raises:
        RecordError: It raises this or anything else; the exception is chained.
    """
    try:
        element = fn(argument)
        return element, flatten(element)
    except RecordError as error:  # by which it says itself what is wrong
        raise RecordError(row, error.what, error.fix) from error
    except BaseException as error:
        if is_for_process(error):
            raise
        raise RecordError(row, f"{name_of(fn)} raised {said(error)}", raised_at(error)) from error


def batch_of(elements: PyTree, tree: ElementTree | None, where: str) -> tuple[ElementTree, list[NDArray[Any]], int]:
    """Return the tree of the elements of a batch that is to be encoded, its leaves, checked, and how many they are.

    Args:
        elements: Leaves `[num_records, ...]`.
        tree: What they have to be like; None: like the first of them.
        where: What errors name as the place.
    """
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten(elements)
    arrays = [np.asarray(leaf) for leaf in leaves]
    length = len(arrays[0]) if arrays and arrays[0].ndim else 0
    if tree is None:
        tree = ElementTree(treedef.unflatten([jax.ShapeDtypeStruct(one.shape[1:], one.dtype) for one in arrays]))
    return tree, tree.leaves_of(treedef.unflatten(arrays), length, where), length


def name_of(fn: Any) -> str:
    """Return the name by which errors call a function."""
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _tree(where: str, spec: PyTree) -> ElementTree:
    """Return a spec as users write it, taken apart."""
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten(spec, is_leaf=is_pair)
    if not leaves:
        raise ArsrcValueError(where, "has no leaf", spec=spec)
    paths = leaf_paths(spec, is_pair)
    pairs = [array_spec(f"{where} leaf {path}", leaf) for path, leaf in zip(paths, leaves, strict=True)]
    return ElementTree(treedef.unflatten([jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in pairs]))


def _spec_of(path: str, leaf: Any, lead: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Return the spec of a leaf that a function gave, without the axes in front."""
    if isinstance(leaf, jax.Array):
        raise RecordError(0, f"leaf {path} is a JAX array", NUMPY_ONLY)
    array = np.asarray(leaf)
    try:
        array_dtype(f"leaf {path}", array.dtype)
    except ArsrcTypeError as error:
        raise RecordError(0, f"leaf {path} is {array.dtype.name}, which JAX arrays cannot be", _ARRAYS) from error
    if array.shape[: len(lead)] != lead:
        what = (
            f"leaf {path} is {array_text(array.dtype, array.shape)} for one record, without a leading axis for records"
        )
        raise RecordError(0, what, "Give arrays [len(records), ...].")
    return jax.ShapeDtypeStruct(array.shape[len(lead) :], array.dtype)


def _check_function(where: str, fn: Any) -> None:
    if not callable(fn):
        raise ArsrcTypeError(where, "must be callable", fn=fn)
    try:
        hash(fn)
    except TypeError as error:
        fix = "Codecs are part of what jit caches by: use a function, or a frozen dataclass with __call__."
        raise ArsrcTypeError(where, "must be hashable", fix, fn=fn) from error
