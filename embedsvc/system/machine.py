"""How many cores and how much memory of the machine this process may use."""

import os
from pathlib import Path
from typing import NamedTuple

from embedsvc.system.cgroups import ROOT, Limit, read_limits


class Share(NamedTuple):
    """How much of something the process may use, how much there is, and what limits it."""

    usable: int
    machine: int
    limit: Limit | None
    """The limit of a control group, where there is one."""


def cores(root: Path = ROOT) -> Share:
    """The cores that this process may compute on.

    A quota of 3.5 cores counts as 3. The rest is left to threads that do not compute, because a
    process that exceeds its quota is stopped, with all its threads, for the rest of each period.
    """
    machine = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limit = read_limits(root).cores
    usable = min(bound, int(limit.value)) if limit else bound
    return Share(max(1, usable), machine, limit)


def memory(root: Path = ROOT) -> Share:
    """How many bytes of memory this process may use."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = read_limits(root).memory
    return Share(min(machine, int(limit.value)) if limit else machine, machine, limit)
