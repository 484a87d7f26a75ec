"""Decoded rows as they travel on the host: one array for each leaf of an element."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Leaves = list[NDArray[np.generic]]
"""One array per leaf in tree order, with the leading axes of what was asked for."""

LeafShapes = Sequence[tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and dtype of each leaf of one element."""
