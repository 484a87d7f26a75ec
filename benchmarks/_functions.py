"""Functions from a record to its bytes that hold the interpreter lock, as a user's parser does; no JAX in here.

Worker processes import this module: what they run must be importable, and quick to import.
"""

import json

import numpy as np
from _data import Bytes

_PASSES = 20
_TEXT = json.dumps({"id": 1234567, "label": "a label", "box": [0.25, 0.5, 0.125, 0.75], "text": "x" * 100, "ok": True})
assert 150 < len(_TEXT) < 250


def heavy(record: bytes) -> Bytes:
    """About a millisecond of plain Python."""
    total = 0
    for _ in range(_PASSES):
        for byte in record:
            total = total * 31 + byte & 0xFFFF
    return np.frombuffer(record, np.uint8)


def cheap(record: bytes) -> Bytes:
    """`json.loads` of some 200 bytes: microseconds."""
    json.loads(_TEXT)
    return np.frombuffer(record, np.uint8)
