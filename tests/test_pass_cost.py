"""The cost of a pass, fitted to what the device does."""

from collections.abc import Sequence

import numpy as np
import pytest

from embedsvc.inference import pass_cost


class Clock:
    """Time that passes only in `encode`, as a device of known speed would let it."""

    def __init__(self, start: float, token: float, pair: float) -> None:
        self.now = 0.0
        self.start, self.token, self.pair = start, token, pair
        self.most = 0
        """Tokens of the largest pass."""

    def perf_counter(self) -> float:
        return self.now

    def encode(self, texts: Sequence[np.ndarray]) -> None:
        self.most = max(self.most, sum(map(len, texts)))
        self.now += self.start + sum(self.token * len(t) + self.pair * len(t) ** 2 for t in texts)


CPU = (0.004, 2e-4, 1e-7)
GPU = (0.0015, 7e-8, 2e-11)


def test_the_cost_of_a_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(*CPU)
    monkeypatch.setattr(pass_cost, "time", clock)
    found = pass_cost.measure(clock.encode, max_tokens=512, max_batch_tokens=4096)
    assert (found.start, found.token, found.pair) == pytest.approx(CPU, rel=1e-3)
    assert found.of(100) == pytest.approx(0.021, rel=1e-3)
    assert clock.most == 256


def test_on_a_fast_device_passes_grow_until_their_texts_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(*GPU)
    monkeypatch.setattr(pass_cost, "time", clock)
    found = pass_cost.measure(clock.encode, max_tokens=512, max_batch_tokens=1 << 16)
    assert (found.start, found.token, found.pair) == pytest.approx(GPU, rel=1e-3)
    assert 1 << 14 <= clock.most <= 1 << 16


@pytest.mark.parametrize("max_tokens", [1, 16, 32])
def test_no_cost_is_negative_where_texts_are_short_or_noise_is_loud(
    monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    clock = Clock(*CPU)
    monkeypatch.setattr(pass_cost, "time", clock)
    found = pass_cost.measure(clock.encode, max_tokens, max_batch_tokens=512)
    assert min(found.start, found.token, found.pair) > 0
    clock.token = clock.pair = 0.0  # all that a pass takes is its start
    found = pass_cost.measure(clock.encode, max_tokens, max_batch_tokens=512)
    assert min(found.start, found.token, found.pair) > 0
