"""Read the same pictures from files as others write them: uncompressed, zstd, zstd in groups; batches are the same.

scikit-learn's digits are written four times. The rates, which differ from run to run, are of the second epoch; hashes
are verified in the first one, and cost nothing then. The last lines are

    zstd, group_size:64: 1 decoded from a map (1 zstd); groups of up to 64 records
    all four give the same batches
"""

import functools
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"image": ("uint8", 64), "label": "uint8"})
LAYOUTS = {
    "uncompressed": "group_size:1,uncompressed",
    "zstd": "group_size:1,zstd",
    "zstd, best": "group_size:1,zstd:19",
    "zstd, group_size:64": "group_size:64,zstd",
}


@functools.partial(jax.jit, static_argnums=0)
def read_epoch(config, state):
    """Return the state after an epoch, and a number that any other batch would change."""

    def body(total, batch):
        weights = jnp.arange(1, batch.data["image"].size + 1, dtype=jnp.uint32)
        return total * jnp.uint32(31) + (batch.data["image"].reshape(-1) * weights).sum(dtype=jnp.uint32), None

    state, total, _ = arsrc.scan_epoch(config, state, jnp.uint32(0), body, batches_per_fetch=7)
    return state, total


def main():
    images, labels = load_digits(return_X_y=True)
    elements = {"image": images.astype(np.uint8), "label": labels.astype(np.uint8)}
    totals = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, options) in enumerate(LAYOUTS.items()):
            path = Path(folder) / f"digits-{number}.array_record"
            arsrc.write_array_record(path, elements, codec=CODEC, options=options)
            config = arsrc.ArrayRecordSourceConfig(
                path,
                64,
                CODEC,
                shuffle_records=True,
                shuffle_block_size=64,  # as groups have records; it costs single records nothing
                read=arsrc.ReadOptions(checksum="first"),
            )
            state, first = jax.block_until_ready(read_epoch(config, arsrc.init(config)))
            begin = time.perf_counter()
            _, second = jax.block_until_ready(read_epoch(config, state))
            rate = arsrc.num_records(config) / (time.perf_counter() - begin)
            totals.append((int(first), int(second)))
            how = next(line for line in arsrc.explain(config).splitlines() if line.startswith("files: "))
            print(f"{path.stat().st_size:,} bytes, {rate:,.0f} records a second")
            print(f"{name}: {how.removeprefix('files: ')}")
    assert len(set(totals)) == 1
    assert totals[0][0] != totals[0][1]
    print("all four give the same batches")


if __name__ == "__main__":
    main()
