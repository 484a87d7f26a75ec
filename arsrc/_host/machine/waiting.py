"""Whether this thread had to wait for the disk, as the system counts it."""

try:
    import resource
except ImportError:  # not on every platform
    resource = None  # type: ignore[assignment]

_THREAD = getattr(resource, "RUSAGE_THREAD", None)


def num_waits() -> int:
    """Return a number that grows when the disk reads for this thread, or the thread has to wait for what it reads.

    It is always 0 where the system does not count for threads.
    """
    if _THREAD is None:
        return 0
    usage = resource.getrusage(_THREAD)
    return usage.ru_majflt + usage.ru_inblock
