"""The memory that this process uses, and how freed memory goes back to the system."""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

from embedsvc.system.mac import footprint

PASSES = 4
"""Of the memory that models have, 1 / PASSES is for what passes compute, and the rest for
weights."""
PROCESSES = Path("/proc")


class MemoryUse(NamedTuple):
    """Bytes."""

    active: int
    cache: int
    """Freed, but kept for reuse."""
    peak: int
    """The most that was active."""


def process_memory() -> MemoryUse:
    """The memory of this process; its peak where the system tells no more."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    active = memory_of(os.getpid()) or peak
    return MemoryUse(active, 0, max(active, peak))


def memory_of(pid: int) -> int | None:
    """Bytes of memory that a process has resident, or what macOS counts as its own; None where the
    system does not tell."""
    try:
        text = (PROCESSES / f"{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return footprint(pid)
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Have glibc, which keeps freed memory, return it. Other C libraries do that by themselves."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tune_allocator(*, trim_threshold: int, mmap_threshold: int) -> None:
    """Set how much freed memory glibc keeps. Other C libraries have no such settings.

    `trim_threshold` is how many free bytes it may keep. A block of `mmap_threshold` bytes or more
    is memory of its own, which goes back to the system when the block is freed.
    """
    names = {-1: trim_threshold, -3: mmap_threshold}  # as in malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in names.items():
            mallopt(name, value)
