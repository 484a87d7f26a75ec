"""What the numbers were measured on: hardware and versions, without names or paths."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence

OURS = ("arsrc", "jax", "jaxlib", "numpy", "array-record", "zstandard")
PEERS = ("grain", "torch", "cyreal", "datarax")


def use_cores(count: int) -> None:
    """Keep this process and those it starts on so many cores; must run before JAX and NumPy start threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(packages: Sequence[str] = OURS + PEERS) -> dict[str, str]:
    """Return what there is, by name."""
    found = {
        "CPU": _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": f"{num_cores()} used of {os.cpu_count()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f} running processes",
    }
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def table(machine: Mapping[str, str]) -> str:
    """Return a description as Markdown."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items())])


def _first(path: str, field: str) -> str | None:
    """Return the first value of a field in a file of `field : value` lines."""
    try:
        with open(path) as file:
            lines = (line.partition(":") for line in file)
            return next((value.strip() for name, _, value in lines if name.strip() == field), None)
    except OSError:
        return None
