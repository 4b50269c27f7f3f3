"""The kernels under sanitizers: `make test-kernels`. It takes minutes, and gcc with its libraries;
where one is missing it fails.

AddressSanitizer and UndefinedBehaviorSanitizer watch the tests of the kernels and random passes in
Python, on each instruction set that this processor has; ThreadSanitizer watches programs in C.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from embedsvc.inference.ops.native.library import load
from tests.support.c_programs import DOTS, THREAD_POOL, THREAD_POOL_CASES, build
from tests.support.project import ROOT

RACES = {"TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0"}
FUZZ_PASSES = 150
TESTS = {
    # Passes beside each other take minutes here. passes.c tries them, under ThreadSanitizer.
    "operations": ["tests/test_native.py", "-k", "not beside"],
    "precisions": ["tests/test_low_precision.py", "-k", "not real"],
    "quantised": ["tests/test_quantized_layers.py"],
    "backends": [
        *("tests/test_ops.py", "tests/test_attention.py", "tests/test_table_limits.py"),
        *("-k", "native"),
    ],
    "architectures": ["tests/test_architectures.py", "-k", "native"],
    "programs": ["tests/test_program.py", "tests/test_scratch.py", "tests/test_library.py"],
}


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built so that the first report ends the process."""
    return library(tmp_path_factory.mktemp("kernels"), "address,undefined")


@pytest.fixture(scope="session")
def threads_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("threads"), "thread")


def library(folder: Path, sanitize: str) -> Path:
    command, output = hatch_build.compiler(), folder / "kernels.so"
    assert command is not None, "there is no C compiler"
    assert hatch_build.build(command, output, sanitize=sanitize)
    return output


def watched(kernels: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sanitizers' library loaded first, as they require."""
    command = hatch_build.compiler()
    assert command is not None
    runtime = subprocess.check_output([*command, "-print-file-name=libasan.so"], text=True).strip()
    assert Path(runtime).is_absolute(), "AddressSanitizer's library is not installed"
    options = "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ
        | {"KERNELS": str(kernels), "LD_PRELOAD": runtime, "ASAN_OPTIONS": options}
        | {"UBSAN_OPTIONS": "print_stacktrace=1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def clean(done: subprocess.CompletedProcess[str]) -> str:
    """What a process printed. Nothing of it may be from a sanitizer."""
    assert "ERROR: AddressSanitizer" not in done.stdout, done.stdout
    assert "runtime error" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("group", TESTS)
def test_no_test_of_the_kernels_makes_them_leave_their_memory(kernels: Path, group: str) -> None:
    run = ["-m", "pytest", "-qs", "-p", "no:cacheprovider", "--timeout", "600", *TESTS[group]]
    said = clean(watched(kernels, *run))
    passed = re.search(r"(\d+) passed", said)
    assert passed
    assert int(passed[1]) >= 30


@pytest.mark.parametrize("seed", [1, 2])
def test_no_random_pass_or_tape_or_index_makes_them(kernels: Path, seed: int) -> None:
    said = clean(watched(kernels, "-m", "tests.kernels.fuzz", str(seed), str(FUZZ_PASSES)))
    lines = said.splitlines()
    assert lines[-1].startswith(("SSE2", "NEON"))
    assert len(lines) == len(load().kernels)
    for line in lines:
        counts = {name: int(count) for name, count in re.findall(r"'([^']*)': (\d+)", line)}
        assert counts["right"] >= FUZZ_PASSES / 5  # of those in float32, a third
        assert counts["bfloat16"] == counts["int8"] == FUZZ_PASSES / 3
        assert counts["tape refused (CheckpointError)"] >= FUZZ_PASSES
        assert counts["batch refused (EmbeddingFailed)"] >= FUZZ_PASSES
        assert counts["no memory"] >= FUZZ_PASSES
        assert counts["tape harmless"] >= FUZZ_PASSES


def test_a_kernel_that_does_is_reported(kernels: Path) -> None:
    """A weight that claims to be longer than it is, which C cannot check."""
    lie = """
import numpy as np
from tests import conftest
from embedsvc.inference.ops.native import NativeOps
ops = NativeOps(1)
table = np.zeros((1000, 8), np.float32)
traced = ops.trace(lambda ops, batch: ops.embedding(table, batch.ids))
traced.tape["rows"] *= 2
traced.tape["weight_size"] *= 2
ops.program(traced).run(ops.batch([np.array([1001], np.int32)]))
"""
    done = watched(kernels, "-c", lie)
    assert "AddressSanitizer: heap-buffer-overflow" in done.stdout
    assert done.returncode != 0


def test_undefined_behaviour_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "overflow.c"
    source.write_text("int main(int n, char **w) { (void)w; return (n + 0x7ffffffe) + n; }\n")
    flags = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    done = subprocess.run(
        [build(tmp_path / "overflow", *flags, sources=[source])], capture_output=True, text=True
    )
    assert "runtime error: signed integer overflow" in done.stderr
    assert done.returncode != 0


def test_every_way_to_multiply_is_right_and_one_that_is_wrong_is_not_used(tmp_path: Path) -> None:
    """Those of AMX on tiles that are plain loops, since few processors have them."""
    dots = build(tmp_path / "dots", "-O1", "-fsanitize=address,undefined", sources=DOTS)
    done = subprocess.run([dots], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("what is wrong is not used\n")


@pytest.fixture(scope="session")
def thread_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("thread_pool") / "thread_pool"
    return build(output, "-O1", "-fsanitize=thread", sources=THREAD_POOL)


def raced(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program under ThreadSanitizer, without random addresses where it needs that."""
    for before in ([], ["setarch", "--addr-no-randomize"]):
        done = subprocess.run(
            [*before, *map(str, command)], env=os.environ | RACES, capture_output=True, text=True
        )
        if "unexpected memory mapping" not in done.stderr:
            return done
    raise AssertionError(done.stderr)


@pytest.mark.parametrize("case", THREAD_POOL_CASES)
def test_the_thread_pool_has_no_race(thread_pool: Path, case: str) -> None:
    done = raced(thread_pool, case)
    assert "Sanitizer" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("racing", [False, True], ids=["as it is", "racing"])
def test_passes_of_several_threads_have_no_race_and_one_that_had_is_reported(
    threads_kernels: Path, tmp_path: Path, racing: bool
) -> None:
    sources = [ROOT / "tests/kernels/passes.c", threads_kernels]
    flags = ("-O1", "-fsanitize=thread", f"-Wl,-rpath,{threads_kernels.parent}")
    more = ("-DRACED",) if racing else ()
    passes = build(tmp_path / "passes", *flags, *more, sources=sources)
    done = raced(passes)
    assert ("ThreadSanitizer: data race" in done.stderr) == racing, done.stderr
    assert (done.returncode == 0) != racing, done.stderr
