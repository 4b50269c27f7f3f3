"""How the kernels are built: flags that compilers have, and what the library then is."""

import ctypes
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from embedsvc.inference.ops.native import library
from tests.support.programs import program

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into an ELF file")
LOAD_DYNAMIC, STACK, RELRO = 2, 0x6474E551, 0x6474E552
FLAGS, BIND_NOW, EXECUTABLE = 30, 8, 1


def compiler_without(folder: Path, *flags: str) -> list[str]:
    """The compiler, but for some flags that it does not know."""
    tests = " ".join(f"*' {flag}'*) echo 'unknown option {flag}' >&2; exit 1;;" for flag in flags)
    file = folder / "cc"
    file.write_text(f'#!/bin/sh\ncase " $*" in {tests} esac\nexec {program("cc")} "$@"\n')
    file.chmod(0o755)
    return [str(file)]


def test_every_flag_that_the_compiler_has_is_used(tmp_path: Path) -> None:
    whole = hatch_build.hardened([program("cc")])
    assert "-fstack-protector-strong" in whole
    for name in ("-fstack-protector-strong", "-D_FORTIFY_SOURCE=3", "-fstack-clash-protection"):
        assert name not in hatch_build.hardened(compiler_without(tmp_path, name))
        rest = [flag for flag in whole if flag != name and "FORTIFY" not in flag]
        taken = hatch_build.hardened(compiler_without(tmp_path, name))
        assert [flag for flag in taken if "FORTIFY" not in flag] == rest
    assert "-D_FORTIFY_SOURCE=2" in hatch_build.hardened(
        compiler_without(tmp_path, "-D_FORTIFY_SOURCE=3")
    )


def test_a_compiler_with_none_of_them_builds_all_the_same(tmp_path: Path) -> None:
    names = {flag for group in hatch_build.HARDENED for flag in group}
    assert hatch_build.hardened(compiler_without(tmp_path, *sorted(names))) == []


def test_a_flag_that_is_only_warned_of_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "cc"
    warning = "case \" $*\" in *relro*) echo 'ld: warning: unknown -z relro' >&2;; esac"
    file.write_text(f'#!/bin/sh\n{warning}\nexec {program("cc")} "$@"\n')
    file.chmod(0o755)
    assert "-Wl,-z,relro,-z,now" not in hatch_build.hardened([str(file)])


def test_sources_that_do_not_compile_leave_no_library(tmp_path: Path) -> None:
    output = tmp_path / "kernels.so"
    assert not hatch_build.build(compiler_without(tmp_path, "-std=gnu11"), output)
    assert not output.exists()


def test_whoever_runs_while_it_is_built_has_the_library_as_it_was(tmp_path: Path) -> None:
    """Several environments may be set up at once that share a checkout."""
    output, file = tmp_path / "kernels.so", tmp_path / "cc"
    output.write_bytes(b"as it was")
    there = f"grep -q 'as it was' {output} || exit 1"
    file.write_text(f'#!/bin/sh\n{program("cc")} "$@" && {there}\n')
    file.chmod(0o755)
    assert hatch_build.build([str(file)], output)
    assert output.read_bytes().startswith(b"\x7fELF" if sys.platform == "linux" else b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cc", "kernels.so"]


@pytest.mark.parametrize("words", ["", "{cc}", "{cc} -pipe", "env {cc}"])
def test_the_compiler_may_be_a_command_of_several_words(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("CC", words.format(cc=program("cc")))
    command = hatch_build.compiler()
    assert command
    assert subprocess.run([*command, "--version"], capture_output=True).returncode == 0
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    assert hatch_build.compiler() is None


def test_nothing_is_seen_of_the_library_but_what_python_calls() -> None:
    loaded = ctypes.CDLL(str(library.LIBRARY))
    assert hasattr(loaded, "embedsvc_run")
    for name in (
        "scratch",
        "thread_pool_run",
        "check_program",
        "kernels_baseline",
        "embedsvc_allow",
    ):
        assert not hasattr(loaded, name)


@LINUX
def test_the_library_is_hardened() -> None:
    data = library.LIBRARY.read_bytes()
    assert b"__stack_chk_fail" in data
    headers = program_headers(data)
    assert RELRO in headers
    flags, _, _ = headers[STACK]
    assert not flags & EXECUTABLE
    _, start, size = headers[LOAD_DYNAMIC]
    entries = dict(struct.iter_unpack("<QQ", data[start : start + size]))
    assert entries[FLAGS] & BIND_NOW


def program_headers(data: bytes) -> dict[int, tuple[int, int, int]]:
    """Flags, where it begins and how long it is, by type; see elf(5)."""
    (table,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    found: dict[int, tuple[int, int, int]] = {}
    for number in range(count):
        kind, flags, start, *_, length = struct.unpack_from("<IIQQQQ", data, table + number * size)
        found[kind] = flags, start, length
    return found
