"""The cost of a pass, fitted to what the device does."""

from collections.abc import Sequence

import pytest

from embedsvc.inference import pass_cost
from embedsvc.inference.pass_cost import UNNOTICED_SECONDS, Cost


class Clock:
    """Says how long passes take on a device of known speed."""

    def __init__(self, start: float, token: float, pair: float) -> None:
        self.start, self.token, self.pair = start, token, pair
        self.most = 0
        """Tokens of the largest pass."""

    def seconds(self, lengths: Sequence[int]) -> float:
        self.most = max(self.most, sum(lengths))
        return self.start + sum(self.token * n + self.pair * n**2 for n in lengths)


CPU = (0.004, 2e-4, 1e-7)
GPU = (0.0015, 7e-8, 2e-11)


def test_the_cost_of_a_device_is_found() -> None:
    clock = Clock(*CPU)
    found = pass_cost.measure(clock.seconds, max_tokens=512, max_batch_tokens=4096)
    assert (found.start, found.token, found.pair) == pytest.approx(CPU, rel=1e-3)
    assert found.of(100) == pytest.approx(0.021, rel=1e-3)
    assert clock.most == 256


def test_a_batch_is_work_for_as_long_as_nobody_minds_or_starts_count() -> None:
    quick = Cost(start=0.0003, token=1e-4, pair=1e-8)
    slow = Cost(start=0.004, token=2e-4, pair=1e-7)
    assert (quick.batch_seconds, slow.batch_seconds) == (UNNOTICED_SECONDS, 0.08)


def test_on_a_fast_device_passes_grow_until_their_texts_show() -> None:
    clock = Clock(*GPU)
    found = pass_cost.measure(
        clock.seconds, max_tokens=512, max_batch_tokens=1 << 16, prepares=True
    )
    assert (found.start, found.token, found.pair) == pytest.approx(GPU, rel=1e-3)
    assert 1 << 14 <= clock.most <= 1 << 16


@pytest.mark.parametrize("max_tokens", [1, 16, 32])
def test_no_cost_is_negative_where_texts_are_short_or_noise_is_loud(max_tokens: int) -> None:
    clock = Clock(*CPU)
    found = pass_cost.measure(clock.seconds, max_tokens, max_batch_tokens=512)
    assert min(found.start, found.token, found.pair) > 0
    clock.token = clock.pair = 0.0  # all that a pass takes is its start
    found = pass_cost.measure(clock.seconds, max_tokens, max_batch_tokens=512)
    assert min(found.start, found.token, found.pair) > 0


def test_a_pair_of_tokens_costs_something_however_loud_the_noise_is() -> None:
    clock = Clock(0.004, 2e-4, -1e-7)  # as if long texts were measured in quieter moments
    found = pass_cost.measure(clock.seconds, max_tokens=512, max_batch_tokens=512)
    assert found.pair == pass_cost.LEAST_PAIR * found.token
