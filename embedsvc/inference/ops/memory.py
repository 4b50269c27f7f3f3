"""Memory that this process has of the machine's, and giving back what was freed."""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

PAGES = Path("/proc/self/statm")


class MemoryUse(NamedTuple):
    """Bytes."""

    active: int
    cache: int
    """Freed, and kept for reuse."""
    peak: int
    """The most that was active."""


def process_memory() -> MemoryUse:
    """What the process has of the machine's memory; where the system does not tell, the peak."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    try:
        pages = int(PAGES.read_text(encoding="ascii").split()[1])
    except OSError:
        return MemoryUse(peak, 0, peak)
    return MemoryUse(pages * os.sysconf("SC_PAGE_SIZE"), 0, peak)


def return_freed_memory() -> None:
    """Have glibc, which keeps what was freed, return it to the system. Others do so themselves."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tune_allocator(*, trim_threshold: int, mmap_threshold: int) -> None:
    """Tell glibc how many free bytes it may keep, and from what size on blocks lie by themselves
    and go back when freed. Other C libraries have no such settings."""
    names = {-1: trim_threshold, -3: mmap_threshold}  # as in malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in names.items():
            mallopt(name, value)
