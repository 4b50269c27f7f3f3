"""Threads that help a pass which is alone: `kernels/thread_pool.c` tries them, built by itself."""

import subprocess
from pathlib import Path

import pytest

from tests.support.c_programs import THREAD_POOL, THREAD_POOL_CASES, build


@pytest.fixture(scope="module")
def thread_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("thread_pool") / "thread_pool"
    return build(output, "-O2", sources=THREAD_POOL)


def test_all_cases_are_named_here(thread_pool: Path) -> None:
    assert subprocess.check_output([thread_pool], text=True).split() == list(THREAD_POOL_CASES)


@pytest.mark.parametrize("case", THREAD_POOL_CASES)
def test_the_thread_pool(thread_pool: Path, case: str) -> None:
    done = subprocess.run([thread_pool, case], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
