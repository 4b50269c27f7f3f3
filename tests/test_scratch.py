"""What the kernels keep from one pass to the next: counted, bounded, given back."""

import multiprocessing
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.native.library import Library
from embedsvc.inference.ops.native.program import Program
from tests.support.passes import ROWS, WIDTH, batch, everything


def test_what_a_long_text_took_is_counted_bounded_and_given_back() -> None:
    ops = NativeOps(1)
    table = np.ones((1, 2048), np.float32)

    def function(ops: Any, batch: Batch) -> Any:
        return ops.pool(ops.embedding(table, batch.ids), batch.layout, ["mean"])

    run = ops.compiled(function)
    ops.release()
    assert ops.memory_use().cache == 0
    run(ops.batch([np.zeros(64, np.int32)]))
    small = ops.memory_use().cache
    assert small == 64 * 2048 * 4
    run(ops.batch([np.zeros(3000, np.int32)]))  # 25 MB of rows
    assert ops.memory_use().cache == 3000 * 2048 * 4
    run(ops.batch([np.zeros(8000, np.int32)]))  # 66 MB
    assert ops.memory_use().cache == 0
    run(ops.batch([np.zeros(64, np.int32)]))
    assert ops.memory_use().cache == small
    ops.release()
    assert ops.memory_use().cache == 0
    assert np.isfinite(run(ops.batch([np.zeros(64, np.int32)]))).all()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc whether a thread has ended")
def test_what_a_thread_kept_goes_when_it_ends() -> None:
    ops = NativeOps(1)
    ops.release()
    run = ops.compiled(everything(ops))
    kept: list[int] = []

    def work() -> None:
        run(batch(9))
        kept.append(ops.memory_use().cache)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{thread.native_id}").exists():
        os.sched_yield()  # it ends a little later than the interpreter's part of it
    # Helpers that other tests began may have done a part, and keep theirs.
    assert ops.memory_use().cache <= kept[0] - 4 * 9 * 2 * WIDTH


def test_scratch_is_released_beside_passes_that_run() -> None:
    ops = NativeOps(3)
    run = ops.compiled(everything(ops))
    expected = run(batch(2, 9, 1))
    wrong: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            if not np.array_equal(run(batch(2, 9, 1)), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        ops.release()
        assert ops.memory_use().cache >= 0
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_program_that_nobody_has_is_freed_and_one_that_runs_is_not() -> None:
    ops = NativeOps(1)
    traced = ops.trace(everything(ops))
    real = ops._library.functions
    freed: list[int] = []
    fake: Any = type("Functions", (), {})()
    fake.embedsvc_program = real.embedsvc_program
    fake.embedsvc_run = real.embedsvc_run
    fake.embedsvc_free = freed.append
    made = Program(Library(fake, ops._library.declared), ops._kernels, traced)
    run, pointer = made.run, made._pointer
    del made
    assert run(batch(2)).shape
    assert freed == []
    del run
    assert freed == [pointer]
    real.embedsvc_free(pointer)


def in_child(rows: Any, ops: NativeOps, run: Any, expected: Any) -> None:
    found = run(ops.batch([np.arange(n, dtype=np.int32) % ROWS for n in rows]))
    ops.release()
    assert np.array_equal(found, expected)


@pytest.mark.skipif(sys.platform == "darwin", reason="its own libraries do not outlive a fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_without_the_helpers() -> None:
    """While threads of its parent's compute, whose locks and counts it gets."""
    ops = NativeOps(3)
    run = ops.compiled(everything(ops))
    rows = (9, 4)
    given = ops.batch([np.arange(n, dtype=np.int32) % ROWS for n in rows])
    expected = run(given)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            run(given)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    fork = multiprocessing.get_context("fork")
    try:
        for _ in range(10):
            child = fork.Process(target=in_child, args=(rows, ops, run, expected))
            child.start()
            child.join(20)
            if child.exitcode is None:
                child.kill()
            assert child.exitcode == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
