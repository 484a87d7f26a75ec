"""Whether devices are done with what was dispatched to them."""

import time
from typing import Any

import jax
import numpy as np

from arsrc.devices.placement import Placement, beside, place
from arsrc.programs import program

_SOON = 2e-4
"""Seconds: a device that has nothing else to do computes a scalar in less."""


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

    def is_done(self, seconds: float) -> bool:
        """Whether all that is marked is done, or will be within so many seconds; waits for it."""
        if self._mark is None:
            return True
        begun = time.perf_counter()
        while not self._mark.is_ready():
            waited = time.perf_counter() - begun
            if waited > max(seconds, _SOON):
                return False
            time.sleep(0 if waited < _SOON else _SOON)
        return True

    def wait(self) -> None:
        """Wait until all that is marked is done."""
        if self._mark is not None:
            self._mark.block_until_ready()


def _computed(scalar: Any) -> Any:
    return scalar ^ np.uint32(1)  # what a program only hands through, it does not wait for
