"""One call of the host: what a compiled program hands over, and what it gets."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from arsrc.errors import ArsrcValueError

Leaves = list[Any]


@jax.tree_util.register_static  # an argument of traced functions that is no array
@dataclasses.dataclass(frozen=True)
class HostCall:
    """A call of the host.

    Calls of equal configs are equal, and with them the programs in which they stand.

    Attributes:
        read: Gives for `operand u32[num_members, n]` one array `[num_members, *shape]` for each of `results`, and of
            which records their rows are, `u32[num_members, ...]`. The second argument is None or such arrays to write
            into, which it may do or not.
        results: What one member gets, as the device takes it.
        paths: Of each of `results` in the element, for errors.
    """

    read: Callable[[np.ndarray, Leaves | None], tuple[Leaves, np.ndarray]]
    results: tuple[jax.ShapeDtypeStruct, ...]
    paths: tuple[str, ...]

    def specs(self, lead: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
        """Return what members with these leading axes get."""
        return [jax.ShapeDtypeStruct(lead + result.shape, result.dtype) for result in self.results]

    def __call__(self, operand: Any) -> Leaves:
        """Return the results for `operand` u32[*lead, n]."""
        operand = np.asarray(operand)
        lead = operand.shape[:-1]
        leaves, record_ids = self.read(_merged(operand, len(lead)), None)
        return [
            narrowed(leaf, result.dtype, path, record_ids).reshape(lead + result.shape)
            for leaf, result, path in zip(leaves, self.results, self.paths, strict=True)
        ]

    def write(self, _: Any, buffers: Sequence[Any], operand: Any) -> None:
        """Write the results for `operand` u32[*lead, n] into the memory of the running program."""
        operand = np.asarray(operand)
        num_lead = operand.ndim - 1
        outs = [_merged(np.asarray(buffer), num_lead) for buffer in buffers]
        leaves, record_ids = self.read(_merged(operand, num_lead), outs)
        for out, leaf, path in zip(outs, leaves, self.paths, strict=True):
            if leaf is not out:
                out[...] = narrowed(leaf, out.dtype, path, record_ids).reshape(out.shape)


def _merged(array: np.ndarray, num_lead: int) -> np.ndarray:
    """Return an array [*lead, ...] as one of [num_members, ...]."""
    if num_lead == 1:
        return array
    return array.reshape(math.prod(array.shape[:num_lead]), *array.shape[num_lead:])


def narrowed(leaf: np.ndarray, dtype: np.dtype, path: str, record_ids: np.ndarray) -> np.ndarray:
    """Return a leaf with the dtype that the device takes; integers that do not fit are an error.

    Args:
        leaf: Array `[*record_ids.shape, *shape]`.
        dtype: What it becomes.
        path: Of the leaf in the element, for errors.
        record_ids: u32[...], which errors name.

    Raises:
        ArsrcValueError: An integer does not fit.
    """
    if leaf.dtype == dtype:
        return leaf
    if leaf.dtype.kind in "iu" and leaf.size:
        low, high, limits = leaf.min(), leaf.max(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            wrong = ((leaf < limits.min) | (leaf > limits.max)).reshape(record_ids.size, -1).any(axis=1)
            raise ArsrcValueError(
                "decode",
                f"{leaf.dtype} values do not fit {dtype}, and 64-bit types are off, for leaf {path}",
                "Set jax_enable_x64, or let the codec give smaller numbers.",
                low=int(low),
                high=int(high),
                record_id=int(record_ids.ravel()[wrong.argmax()]),
            )
    return leaf.astype(dtype)
