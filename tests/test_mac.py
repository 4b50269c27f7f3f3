"""What macOS says of a Mac, here by a library in C that answers as its kernel does."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedsvc.inference.ops import memory
from embedsvc.system import mac
from embedsvc.system.mac import Mac, sysctl_number, sysctl_text, this_mac
from tests.support.programs import program

SYSCTL = r"""
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
int sysctlbyname(const char *name, void *old, size_t *length, void *new, size_t new_length) {
    static const int one = 1;
    static const long long memory = 8LL << 30;
    const void *value = NULL;
    size_t size = 0;
    if (new || new_length) return EPERM;
    if (!strcmp(name, "machdep.cpu.brand_string")) { value = "Apple M1"; size = 9; }
    if (!strcmp(name, "sysctl.proc_translated")) { value = &one; size = sizeof one; }
    if (!strcmp(name, "hw.memsize")) { value = &memory; size = sizeof memory; }
    if (!value) { errno = ENOENT; return -1; }
    if (*length < size) { errno = ENOMEM; return -1; }
    memcpy(old, value, size);
    *length = size;
    return 0;
}

/* As <sys/resource.h> of macOS has it. */
struct rusage_info_v0 {
    uint8_t ri_uuid[16];
    uint64_t ri_user_time, ri_system_time, ri_pkg_idle_wkups, ri_interrupt_wkups, ri_pageins;
    uint64_t ri_wired_size, ri_resident_size, ri_phys_footprint;
    uint64_t ri_proc_start_abstime, ri_proc_exit_abstime;
};
int proc_pid_rusage(int pid, int flavor, void **buffer) {
    struct rusage_info_v0 usage = {.ri_resident_size = 1, .ri_phys_footprint = 5LL << 30};
    if (pid != 4711 || flavor != 0) { errno = ESRCH; return -1; }
    memcpy(buffer, &usage, sizeof usage);
    return 0;
}
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that knows three values."""
    source, output = tmp_path / "sysctl.c", tmp_path / "sysctl.so"
    source.write_text(SYSCTL)
    command = [program("cc"), "-shared", "-fPIC", str(source), "-o", str(output)]
    subprocess.run(command, check=True)
    monkeypatch.setattr(mac, "_libc", lambda: ctypes.CDLL(str(output)))


@pytest.mark.usefixtures("kernel")
def test_values_of_the_kernel_are_texts_and_numbers_of_their_own_size() -> None:
    assert sysctl_text("machdep.cpu.brand_string") == "Apple M1"
    assert sysctl_number("sysctl.proc_translated") == 1
    assert sysctl_number("hw.memsize") == 8 << 30


@pytest.mark.usefixtures("kernel")
def test_a_value_that_the_kernel_does_not_have_is_none() -> None:
    assert sysctl_text("hw.no_such_name") is sysctl_number("hw.no_such_name") is None


@pytest.mark.usefixtures("kernel")
def test_the_memory_of_a_process_is_what_macos_counts_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROCESSES", tmp_path)  # there is no /proc
    assert memory.memory_of(4711) == 5 << 30
    assert memory.memory_of(1) is None
    use = memory.process_memory()
    assert use.active == use.peak > 1e6, "of this process, only the peak is known here"
    monkeypatch.setattr(memory.os, "getpid", lambda: 4711)
    assert memory.process_memory().active == 5 << 30


def test_linux_tells_what_is_resident() -> None:
    if sys.platform == "linux":
        assert 1e6 < (memory.memory_of(os.getpid()) or 0) < 1e11
        assert memory.memory_of(1 << 30) is None


def test_a_system_without_such_values_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mac, "_libc", object)
    assert sysctl_text("machdep.cpu.brand_string") is None
    assert mac.footprint(os.getpid()) is None


@pytest.mark.parametrize(
    ("translated", "machine", "release", "expected"),
    [
        (0, "arm64", "24.1.0", Mac(15, silicon=True, translated=False)),
        (None, "x86_64", "22.6.0", Mac(13, silicon=False, translated=False)),
        (1, "x86_64", "25.0.0", Mac(26, silicon=True, translated=True)),
    ],
)
def test_a_mac_is_told_by_its_kernel(
    translated: int | None,
    machine: str,
    release: str,
    expected: Mac,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"sysctl.proc_translated": translated}
    monkeypatch.setattr(mac, "sysctl_number", values.get)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(mac.platform, "machine", lambda: machine)
    monkeypatch.setattr(mac.platform, "release", lambda: release)
    assert this_mac() == expected


def test_another_system_is_no_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert this_mac() is None
