"""Passes that are compiled: the shapes that keep coming, a few at a time, freed when dropped."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.mlx import MlxOps, compiling
from embedsvc.inference.ops.mlx.compiling import MOST, MOST_ROWS, OFTEN, WINDOW, CompiledPasses


class Passes:
    """A pass of MLX's, and what Python does for it: it is called to run, or to be traced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ops = MlxOps("float32")
        self.ops.compile = True
        self.called = 0
        self.traced: list[weakref.ref[Any]] = []
        real = mx.compile

        def counted(function: Callable[..., Any]) -> Any:
            self.traced.append(weakref.ref(function))
            return real(function)

        monkeypatch.setattr(mx, "compile", counted)
        self._passes = CompiledPasses(self.ops, self._pass, mx.float32, self.ops)

    def run(self, texts: int, length: int) -> None:
        """A batch of that shape, whose result must be right."""
        ids = np.arange(length, dtype=np.int32) + texts
        found = np.array(self._passes(self.ops.batch([ids] * texts))).reshape(texts, -1)
        assert (found[:, :length] == ids * 2).all()

    def alive(self) -> int:
        """How many of the functions that were traced there still are."""
        gc.collect()
        return sum(each() is not None for each in self.traced)

    def _pass(self, _: Any, batch: Batch) -> mx.array:
        self.called += 1
        return batch.ids.astype(mx.float32) * 2


def test_a_shape_is_compiled_once_it_came_often_and_then_python_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = Passes(monkeypatch)
    for _ in range(OFTEN - 1):
        passes.run(1, 16)
    assert (passes.called, passes.alive()) == (OFTEN - 1, 0)
    for _ in range(5):
        passes.run(1, 16)
    assert (passes.called, passes.alive()) == (OFTEN, 1)
    passes.run(2, 16)
    assert (passes.called, passes.alive()) == (OFTEN + 1, 1)


def test_a_pass_is_traced_anew_where_attention_is_done_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = Passes(monkeypatch)
    passes.ops.often = 1
    for plain in (False, True, False, True):
        passes.ops.plain = plain
        passes.run(1, 16)
    assert (passes.called, passes.alive()) == (2, 2)


def test_shapes_that_come_seldom_are_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    shapes = [(texts, length) for texts in (1, 2, 4) for length in range(16, 257, 16)]
    seldom = shapes[: WINDOW // (OFTEN - 1) + 1]
    for shape in seldom * (2 * OFTEN):
        passes.run(*shape)
    assert (passes.called, len(passes.traced)) == (len(seldom) * 2 * OFTEN, 0)


def test_few_shapes_are_compiled_at_a_time_and_those_dropped_are_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "MOST", 3)
    passes = Passes(monkeypatch)
    passes.ops.often = 1
    for length in (16, 32, 48):
        passes.run(1, length)
    passes.run(1, 16)
    assert (len(passes.traced), passes.alive()) == (3, 3)
    passes.run(1, 64)  # 32 was used least lately
    assert (len(passes.traced), passes.alive()) == (4, 3)
    passes.run(1, 16)
    passes.run(1, 48)
    assert len(passes.traced) == 4
    passes.run(1, 32)
    assert (len(passes.traced), passes.alive()) == (5, 3)
    del passes._passes
    assert passes.alive() == 0


def test_long_batches_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    passes.ops.often = 1
    passes.run(1, MOST_ROWS)
    assert len(passes.traced) == 1
    for texts, length in ((1, 2 * MOST_ROWS), (2, MOST_ROWS)):
        passes.run(texts, length)
    assert len(passes.traced) == 1


def test_a_pass_that_cannot_be_traced_runs_as_it_is_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes = Passes(monkeypatch)
    passes.ops.often = 1
    real = passes._pass
    passes._passes._function = lambda ops, batch: real(ops, batch) * int(batch.ids[0].item() > 0)
    for length in (16, 16, 32):
        passes.run(1, length)
    assert (passes.called, passes.alive()) == (4, 0)  # once to be traced
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_there_is_room_for_all_shapes_that_can_come_often() -> None:
    assert MOST * OFTEN >= WINDOW


def test_nothing_is_compiled_where_that_is_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    passes.ops.compile = False
    for _ in range(2 * OFTEN):
        passes.run(1, 16)
    assert (passes.called, passes.traced) == (2 * OFTEN, [])
    passes.ops.compile = True
    passes.run(1, 16)
    assert passes.alive() == 1
