"""Whether devices are done with what was dispatched to them."""

import time
from typing import Any

import jax
import numpy as np

from arsrc.devices.placement import Placement, beside, place
from arsrc.programs import program

_SOON = 2e-4
"""Seconds: a device that has nothing to do computes a scalar in less."""


class Dispatched:
    """What a program dispatches to some devices, as far as it was marked: devices work in that order.

    Args:
        placement: The devices.
    """

    def __init__(self, placement: Placement) -> None:
        self._scalar = place(np.zeros((), np.uint32), beside(placement))
        self._mark: Any = None

    def mark(self) -> None:
        """Mark what was dispatched until now; `is_done` and `wait` tell of it."""
        with jax.disable_jit(False):
            self._mark = program(_computed)(self._scalar)

    def is_done(self) -> bool:
        """Whether all that is marked is done, or as good as done."""
        if self._mark is None:
            return True
        end = time.perf_counter() + _SOON
        while not self._mark.is_ready():
            if time.perf_counter() > end:
                return False
        return True

    def wait(self) -> None:
        """Wait until all that is marked is done."""
        if self._mark is not None:
            self._mark.block_until_ready()


def _computed(scalar: Any) -> Any:
    return scalar ^ np.uint32(1)  # what a program only hands through, it does not wait for
