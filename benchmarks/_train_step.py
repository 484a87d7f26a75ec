"""What all contestants feed: jitted training steps that need the whole batch, short, long, or waiting."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

Array = jax.Array
LINE_BYTES = 64


def consume(carry: Array, batch: Array) -> tuple[Array, None]:
    """Use a batch u8[n, record_bytes] as cheaply as can be: add one byte of each cache line to u32[] `carry`.

    The barrier makes the compiler bring the whole batch into memory first. Without it, XLA would fuse a gather on
    the device with the sum, and never gather the bytes that are not added: an unfair advantage. It holds the carry
    too, so that a batch which is the same in each step of a scan is used in each.
    """
    batch, carry = jax.lax.optimization_barrier((batch, carry))
    return carry + batch[:, ::LINE_BYTES].sum(dtype=jnp.uint32), None


@jax.jit
def step(carry: Array, batch: Array) -> Array:
    """`consume` as a training step of its own, for loops outside jit."""
    return consume(carry, batch)[0]


def start() -> Array:
    """Return the first carry."""
    return jnp.zeros((), jnp.uint32)


class LongStep:
    """A step of at least `seconds` of arithmetic on the batch: as many matrix products as that takes.

    `num_copies` of the batch are computed side by side: an accelerator has a batch alone done before the host has told
    it what comes next.

    Attributes:
        num_products: Of `[num_copies * batch, 784] x [784, 784]`, one after the other.
        seconds: What one step takes, at best, in a scan over one batch.
    """

    width = 784
    _timed_steps = 50
    _timed_seconds = 0.1

    def __init__(self, batch_size: int, seconds: float, num_copies: int = 1) -> None:
        self._num_copies = num_copies
        self._weights = np.random.default_rng(0).normal(0, self.width**-0.5, (self.width, self.width))
        batch = jnp.ones((batch_size, self.width), jnp.uint8)
        self.num_products, self.seconds = 0, 0.0
        self._num_timed = max(1, min(self._timed_steps, int(self._timed_seconds / seconds)))
        while self.seconds < seconds:
            # From below, since a step has a cost of its own: proportion falls short of what is missing.
            wanted = self.num_products * seconds / self.seconds if self.num_products else 1
            self.num_products = max(self.num_products + 1, int(wanted))
            self.seconds = self._time(batch)

    def _time(self, batch: Array) -> float:
        length = self._num_timed
        program = jax.jit(lambda batch: jax.lax.scan(lambda carry, _: self(carry, batch), start(), length=length)[0])
        program(batch).block_until_ready()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            program(batch).block_until_ready()
            times.append(time.perf_counter() - begin)
        return min(times) / length

    def __call__(self, carry: Array, batch: Array) -> tuple[Array, None]:
        """The body of a scan; what it starts from depends on the carry, so that no step can be left out."""
        weights = jnp.asarray(self._weights, jnp.float32)
        hidden = jax.lax.optimization_barrier((batch, carry))[0][:, : self.width].astype(jnp.float32) / 255
        hidden = jnp.tile(hidden, (self._num_copies, 1))
        hidden = jax.lax.fori_loop(0, self.num_products, lambda _, h: jnp.tanh(h @ weights), hidden)
        return carry + hidden.sum().astype(jnp.uint32), None


def waiting_step(seconds: float, carry: Array, batch: Array) -> tuple[Array, None]:
    """A body that uses the batch and then waits outside the CPU, as for an accelerator.

    A callback that sleeps: the thread that runs the program blocks, as it does while a device computes; the
    sleep holds neither a core nor the interpreter lock, so the host's threads may read ahead, as they may then.
    The next step begins when the sleep is over, as a scan on a device goes on when its step is done. What it
    leaves out is the copy from host to device. It costs the time of a callback more than it sleeps; so what is
    compared with is the time of the same step, measured over a batch that is there already.
    """
    carry, _ = consume(carry, batch)
    wait = functools.partial(_sleep, seconds)
    return io_callback(wait, jax.ShapeDtypeStruct((), np.uint32), carry, ordered=False), None


def _sleep(seconds: float, carry: Any) -> Any:
    time.sleep(seconds)
    return np.asarray(carry)
