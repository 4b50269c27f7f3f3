"""Programs in C that try the kernels' code."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.programs import program
from tests.support.project import ROOT

NATIVE = ROOT / "embedsvc/inference/ops/native"
THREAD_POOL = (ROOT / "tests/kernels/thread_pool.c", NATIVE / "thread_pool.c")
"""The pool of threads by itself, and what tries it."""
DOTS = (
    ROOT / "tests/kernels/dots.c",
    *(NATIVE / f"{name}.c" for name in ("baseline", "avx2", "avx512", "scratch", "thread_pool")),
    *(NATIVE / f"{name}.c" for name in ("avx2_dots", "avx512_dots", "neon_dots", "amx")),
)
"""Every way to multiply in a lower precision, and what tries them."""
THREAD_POOL_CASES = (
    "every_part_is_done_once",
    "a_pass_alone_has_all_helpers",
    "helpers_come_back_to_the_pass_that_had_them",
    "helpers_come_to_a_pass_that_never_had_them",
    "passes_of_many_threads_do_their_own_parts",
    "a_part_may_have_parts",
    "more_helpers_may_be_asked_for_and_fewer_are_as_many",
    "a_forked_child_has_no_helpers_and_all_parts_are_done",
)


def build(output: Path, *flags: str, sources: Sequence[Path], compiler: str = "cc") -> Path:
    """Compile a program in C from the kernels' code, or from some of it, and what tries it."""
    command = [program(compiler), "-std=gnu11", "-g", "-pthread", "-Wall", "-Wextra", "-Werror"]
    command += [*flags, f"-I{NATIVE}", *map(str, sources), "-o", str(output), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output
