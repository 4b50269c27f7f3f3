"""What the processor is called, and how many cores of which kind it has."""

import platform
import re
from pathlib import Path
from typing import NamedTuple

from embedsvc.system.mac import sysctl_number, sysctl_text

CPUINFO = Path("/proc/cpuinfo")


class Processor(NamedTuple):
    """A processor, in words for people."""

    name: str
    fast_cores: int | None
    """Cores that are made for speed; None where all cores are alike, or that is not known."""
    slow_cores: int | None
    """Cores that are made to save power."""


def this_processor() -> Processor:
    """The processor of this machine."""
    name = sysctl_text("machdep.cpu.brand_string") or _linux_name() or platform.machine()
    # "perflevel0" are the fast ones. A Mac with Intel's processor has no such levels.
    fast = sysctl_number("hw.perflevel0.physicalcpu")
    slow = sysctl_number("hw.perflevel1.physicalcpu")
    return Processor(name, fast, slow)


def _linux_name() -> str | None:
    """The name in /proc/cpuinfo. Processors of Arm have none there."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None
