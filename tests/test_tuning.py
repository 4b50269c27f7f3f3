"""Choices made while a model loads: in little time, fairly, and with others served in between."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import mlx.core as mx
import pytest

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.tuning import MOST_SECONDS, Choices, Shape, Tuning
from embedsvc.inference.plan import make_plan
from embedsvc.inference.turns import Turns
from tests.support.clock import Clock

T = TypeVar("T")
SWITCHES = {"fast": Shape(1, 32)}


class Gpu:
    """A device on which a pass takes as long as a function says, by a clock that nothing else
    moves."""

    def __init__(self, takes: Callable[[Any, int], float], **switches: bool) -> None:
        self.ops = SimpleNamespace(**(switches or {"fast": False}))
        self.clock = Clock(0.0)
        self.passes: list[tuple[int, ...]] = []
        self._takes = takes

    def seconds(self, lengths: Sequence[int]) -> float:
        self.passes.append(tuple(lengths))
        took = self._takes(self.ops, len(self.passes))
        self.clock.now += took
        return took

    def tune(
        self,
        loading: float = 100.0,
        kept: dict[str, Choices] | None = None,
        hardware: str = "this",
        switches: Mapping[str, Shape] = SWITCHES,
    ) -> None:
        keeper: Any = None if kept is None else SimpleNamespace(get=kept.get, put=kept.__setitem__)
        tuning = Tuning(self.seconds, "m", keeper, loading=loading, clock=self.clock)
        tuning.choose(self.ops, hardware, switches)


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize(("fast", "slow", "expected"), [(1, 2, True), (2, 1, False)])
def test_what_is_clearly_faster_is_chosen(
    usual: bool, fast: float, slow: float, expected: bool
) -> None:
    gpu = Gpu(lambda ops, _: (fast if ops.fast else slow) / 100, fast=usual)
    gpu.tune()
    assert gpu.ops.fast is expected


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("fast", [0.98, 1.0, 1.02])
def test_what_makes_no_clear_difference_stays_as_it_was(usual: bool, fast: float) -> None:
    gpu = Gpu(lambda ops, _: (fast if ops.fast else 1.0) / 100, fast=usual)
    gpu.tune()
    assert gpu.ops.fast is usual


@pytest.mark.parametrize("usual", [False, True])
@pytest.mark.parametrize("change", [0.9, 0.95, 1.05, 1.1])
def test_a_gpu_that_raises_its_clock_or_gets_hot_favours_neither(
    usual: bool, change: float
) -> None:
    gpu = Gpu(lambda _, passes: 0.01 * change**passes, fast=usual)
    gpu.tune()
    better = Gpu(lambda ops, passes: (0.7 if ops.fast else 1.0) * 0.01 * change**passes, fast=usual)
    better.tune()
    assert (gpu.ops.fast, better.ops.fast) == (usual, True)


@pytest.mark.parametrize("loading", [0.0, 0.1, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("each", [0.0005, 0.003, 0.05, 0.7, 30.0])
def test_it_takes_two_seconds_at_most_and_less_than_a_tenth_of_the_load(
    loading: float, each: float
) -> None:
    gpu = Gpu(lambda _, passes: each * (3 if passes <= 2 else 1))
    gpu.tune(loading, switches={"fast": Shape(1, 32)})
    budget = min(MOST_SECONDS, loading / 10)
    if len(gpu.passes) > 1:  # nobody knows how long a pass takes before the first one
        assert gpu.clock.now <= budget
    if loading == 0.0:
        assert not gpu.passes


def test_a_larger_pass_is_not_tried_where_a_small_one_says_that_it_takes_too_long() -> None:
    gpu = Gpu(lambda _, __: 0.1, one=False, two=False)
    gpu.tune(switches={"one": Shape(1, 32), "two": Shape(8, 64)})
    assert set(map(sum, gpu.passes)) == {32}
    gpu = Gpu(lambda _, __: 0.01, one=False, two=False)
    gpu.tune(switches={"one": Shape(1, 32), "two": Shape(8, 64)})
    assert set(map(sum, gpu.passes)) == {32, 512}


def test_a_choice_that_there_is_no_time_for_stays_as_it_was_and_is_not_kept() -> None:
    kept: dict[str, Choices] = {}
    gpu = Gpu(lambda ops, _: 0.1 if ops.fast else 0.3)
    gpu.tune(loading=5.0, kept=kept)
    assert gpu.passes
    assert (gpu.ops.fast, kept) == (False, {})


def test_what_was_found_is_not_looked_for_again_on_the_same_hardware() -> None:
    kept: dict[str, Choices] = {}
    Gpu(lambda ops, _: 0.01 if ops.fast else 0.02).tune(kept=kept)
    again, other = (Gpu(lambda ops, _: 0.02 if ops.fast else 0.01) for _ in range(2))
    again.tune(kept=kept, loading=0.0)
    assert (again.ops.fast, again.passes) == (True, [])
    other.tune(kept=kept, hardware="another")
    assert other.passes
    assert [dict(choices) for choices in kept.values()] == [{"fast": True}, {"fast": False}]
    more = Gpu(lambda _, __: 0.01, fast=False, new=False)
    more.tune(kept=kept, switches=SWITCHES | {"new": Shape(1, 32)})
    assert more.passes, "a switch that is new has not been tried"


def test_a_pass_that_fails_leaves_the_switch_as_it_was() -> None:
    def fail(ops: Any, _: int) -> float:
        if ops.fast:
            raise ValueError("no such kernel")
        return 0.01

    gpu = Gpu(fail)
    with pytest.raises(ValueError, match="no such kernel"):
        gpu.tune()
    assert gpu.ops.fast is False


@pytest.mark.parametrize(("metal", "tried"), [(True, ["compile"]), (False, ["compile", "plain"])])
def test_a_model_that_loads_gives_others_their_turn_after_each_pass(
    monkeypatch: pytest.MonkeyPatch, tiny: Checkpoint, metal: bool, tried: list[str]
) -> None:
    ops = MlxOps("float32")
    ops.gpu = True
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    monkeypatch.setattr("embedsvc.inference.ops.tuning.LOAD_SHARE", 1e6)
    log: list[str] = []
    run = Encoder.run

    def noted_run(encoder: Encoder, *work: Any) -> list[bytes]:
        log.append("a pass")
        return run(encoder, *work)

    def take_turn(work: Callable[[], T]) -> T:
        result = work()
        log.append("others")
        return result

    monkeypatch.setattr(Encoder, "run", noted_run)
    kept: dict[str, Choices] = {}
    keeper: Any = SimpleNamespace(get=kept.get, put=kept.__setitem__)
    load_encoder(ops, tiny, stepwise=Turns(take_turn), tuned=keeper)
    (key,) = kept
    assert sorted(kept[key]) == tried
    assert key.startswith("MLX 0.")
    assert key.endswith(make_plan(tiny, "float32", backend="mlx").digest)
    assert log.count("a pass") > 12 * len(tried)
    together = "".join("p" if each == "a pass" else "o" for each in log)
    assert "pp" not in together
