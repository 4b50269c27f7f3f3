"""What macOS says of itself and of the Mac; None on other systems."""

import ctypes
import platform
import sys
from collections.abc import Callable
from typing import NamedTuple

LONGEST = 256
"""Bytes of the longest value that is asked for, a processor's name."""


class Mac(NamedTuple):
    """What decides on a Mac what can compute there."""

    macos: int
    """The major version of macOS."""
    silicon: bool
    """Whether the processor is Apple's. If not, it is Intel's."""
    translated: bool
    """Whether this Python was built for Intel's processors, and Rosetta translates it."""


def this_mac() -> Mac | None:
    """This Mac; None if it is none."""
    if sys.platform != "darwin":
        return None
    translated = sysctl_number("sysctl.proc_translated") == 1
    silicon = translated or platform.machine() == "arm64"
    return Mac(macos_of_darwin(platform.release()), silicon, translated)


def macos_of_darwin(release: str) -> int:
    """The major version of macOS that has a kernel of that release.

    The kernel's is asked for because macOS tells old programs that it is older than it is.

    >>> [macos_of_darwin(release) for release in ("22.6.0", "24.1.0", "25.0.0")]
    [13, 15, 26]
    """
    darwin = int(release.partition(".")[0])
    return darwin - 9 if darwin < 25 else darwin + 1  # macOS 15 was followed by 26


def sysctl_text(name: str) -> str | None:
    """A value of the kernel's that is a text; None where there is none of that name."""
    value = _sysctl(name)
    return None if value is None else value.partition(b"\0")[0].decode(errors="replace")


def sysctl_number(name: str) -> int | None:
    """A value of the kernel's that is a number; None where there is none of that name."""
    value = _sysctl(name)
    return None if value is None else int.from_bytes(value, sys.byteorder)


def footprint(pid: int) -> int | None:
    """Bytes of memory that macOS counts as a process's own, as Activity Monitor shows them.

    None where it does not tell. See `proc_pid_rusage` in libproc.h.
    """
    read: Callable[..., int] | None = getattr(_libc(), "proc_pid_rusage", None)
    usage = _Usage()
    if read is None or read(pid, 0, ctypes.byref(usage)):  # 0: the first version of the struct
        return None
    return usage.footprint


class _Usage(ctypes.Structure):
    """`rusage_info_v0` in sys/resource.h."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("times_and_counts", ctypes.c_uint64 * 5),
        ("wired", ctypes.c_uint64),
        ("resident", ctypes.c_uint64),
        ("footprint", ctypes.c_uint64),
        ("start_and_exit", ctypes.c_uint64 * 2),
    )


def _sysctl(name: str) -> bytes | None:
    """See sysctlbyname(3)."""
    read: Callable[..., int] | None = getattr(_libc(), "sysctlbyname", None)
    if read is None:
        return None
    value, size = ctypes.create_string_buffer(LONGEST), ctypes.c_size_t(LONGEST)
    if read(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return value.raw[: size.value]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
