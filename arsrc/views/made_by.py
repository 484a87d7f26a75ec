"""What tables of rows are kept with, and what is said of one that is none."""

import numpy as np
from numpy.typing import NDArray

from arsrc.errors import ArsrcValueError
from arsrc.views.packing import Packing, num_ends

VERSION = 1
"""Version of the tables; a change of what stands in any row is a new version."""


def made_by(packing: Packing) -> NDArray[np.int64]:
    """Return all that a table depends on but the lengths of documents."""
    words = ("split", "fit").index(packing.how), ("cut", "truncate", "drop").index(packing.longer)
    return np.array([VERSION, packing.length, *words, num_ends(packing)], np.int64)


def check(is_right: bool | np.bool_, what: str) -> None:
    """Raise `ArsrcValueError` unless something holds that is so in every table."""
    if not is_right:
        fix = "It was made by another version or for another packing, or is damaged: make it anew."
        raise ArsrcValueError("pack table", what, fix)
