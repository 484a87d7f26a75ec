"""Whether a device is done with what was dispatched to it."""

import functools
import time
from typing import Any

import jax
import numpy as np

from arsrc._host.machine.threads import on_new_thread
from arsrc.devices.placement import Placement


class Dispatched:
    """What programs dispatch to devices, as far as it was marked.

    A mark is a scalar that the first of these devices of this process computes: devices do what is dispatched to them
    one after the other, and those of one program are done at about the same time.

    Args:
        placement: The devices.
    """

    def __init__(self, placement: Placement) -> None:
        self._scalar = jax.device_put(np.zeros((), np.uint32), _first_device(placement))
        self._compute = _marker(*self._scalar.devices())
        self._mark: Any = None

    def mark(self) -> None:
        """Mark what was dispatched until now; `is_done` and `wait` tell of it."""
        with jax.disable_jit(False):
            self._mark = self._compute(self._scalar)

    def is_done(self, seconds: float) -> bool:
        """Whether all that is marked is done, or will be within so many seconds; waits for it."""
        begun = time.perf_counter()
        while self._mark is not None and not self._mark.is_ready():
            if time.perf_counter() - begun > seconds:
                return False
            time.sleep(seconds / 16)
        return True

    def wait(self) -> None:
        """Wait until all that is marked is done."""
        if self._mark is not None:
            self._mark.block_until_ready()


def _first_device(placement: Placement) -> Any:
    if isinstance(placement, jax.sharding.Sharding):
        devices: Any = placement.addressable_devices
        return min(devices, key=lambda device: device.id)
    return placement


@functools.lru_cache(maxsize=16)
def _marker(device: jax.Device) -> Any:
    """Return a program that computes a scalar on a device, whatever meshes and switches hold where it is called."""
    scalar = jax.ShapeDtypeStruct((), np.uint32, sharding=jax.sharding.SingleDeviceSharding(device))
    # What a program only hands through, it does not wait for.
    return on_new_thread(lambda: jax.jit(lambda scalar: scalar ^ np.uint32(1)).lower(scalar).compile())
