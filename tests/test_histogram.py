"""Histograms: every value is in one bucket, and quantiles are right to within it."""

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.telemetry.histogram import SECONDS, SIZES, Histogram, quantile


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_a_quantile_is_in_the_bucket_of_the_value_that_it_is(
    values: list[float], share: float
) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    bucket = bisect_left(SECONDS, true)
    low, high = (0.0, *SECONDS)[bucket], (*SECONDS, SECONDS[-1])[bucket]
    assert low <= histogram.quantile(share) <= high * (1 + 1e-9)


def test_a_value_at_a_bound_is_at_most_it() -> None:
    histogram = Histogram(SIZES)
    for value in (1, 2, 3, 4, 5):
        histogram.observe(value)
    assert histogram.counts[:4] == [1, 1, 2, 1]
    assert histogram.mean == 3


def test_what_is_above_all_bounds_is_counted_and_as_large_as_the_last() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(50)
    assert (histogram.counts, histogram.quantile(0.5)) == ([0, 0, 1], 2.0)


def test_without_values_quantiles_and_mean_are_0() -> None:
    assert (Histogram().quantile(0.99), Histogram().mean) == (0.0, 0.0)


def test_two_readings_give_what_came_between() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    histogram.observe(0.5)
    before = list(histogram.counts)
    for _ in range(4):
        histogram.observe(3)
    between = [now - then for now, then in zip(histogram.counts, before, strict=True)]
    assert quantile(histogram.bounds, between, 0.5) == 3.0
