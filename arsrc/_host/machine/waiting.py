"""Whether this thread had to wait for a disk."""

import resource

_OF_THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux has it, macOS has not


def num_waits() -> int:
    """Return a number that grows when the disk reads for this thread, or the thread has to wait for what it reads.

    Where the system does not tell, it is always the same.
    """
    if _OF_THREAD is None:
        return 0
    usage = resource.getrusage(_OF_THREAD)
    return usage.ru_majflt + usage.ru_inblock
