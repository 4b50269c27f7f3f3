"""The machine as far as this process may use it: cores and memory."""

import os
from pathlib import Path
from typing import NamedTuple

from embedsvc.system.cgroups import ROOT, Limit, read_limits


class Share(NamedTuple):
    """How much of something there is, and what bounds that."""

    usable: int
    machine: int
    limit: Limit | None
    """Of a control group, where there is one."""


def cores(root: Path = ROOT) -> Share:
    """Cores this process may run on.

    Where a quota allows for a part of one more, that is left to the threads that do not compute:
    a process that exceeds its quota is stopped, with all threads, for the rest of each period.
    """
    machine = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limit = read_limits(root).cores
    usable = min(bound, int(limit.value)) if limit else bound
    return Share(max(1, usable), machine, limit)


def memory(root: Path = ROOT) -> Share:
    """Bytes of memory this process may use."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = read_limits(root).memory
    return Share(min(machine, int(limit.value)) if limit else machine, machine, limit)
