"""The number of CPUs that this process may use."""

import os


def usable_cpus() -> int:
    """Return how many CPUs this process may use: those of its affinity mask, where the system has one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
