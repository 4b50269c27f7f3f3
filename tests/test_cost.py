"""The cost of a pass, fitted to what the device does."""

from collections.abc import Sequence

import numpy as np
import pytest

from embedsvc import cost


class Clock:
    """Time that passes only in `encode`, as a device of known speed would let it."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def encode(self, texts: Sequence[np.ndarray]) -> None:
        self.now += 0.004 + sum(2e-4 * len(t) + 1e-7 * len(t) ** 2 for t in texts)


def test_the_cost_of_a_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    found = cost.measure(clock.encode, max_tokens=512)
    assert (found.start, found.token, found.pair) == pytest.approx((0.004, 2e-4, 1e-7), rel=1e-3)
    assert found.of(100) == pytest.approx(0.021, rel=1e-3)


@pytest.mark.parametrize("max_tokens", [1, 16, 32])
def test_no_cost_is_negative_where_texts_are_short_or_time_stands_still(
    monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    found = cost.measure(clock.encode, max_tokens)
    assert min(found.start, found.token, found.pair) > 0
