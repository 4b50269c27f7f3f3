"""The queue: which texts make a batch, how much of it is padding, and that order is kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.inference.pass_cost import Cost
from embedsvc.serving.queue import Entry, Grid, Queue, Submission
from embedsvc.texts.item import Item
from tests.support.fake_device import COST, FREE, exact, rounded, text


def queue_of(lengths: Sequence[int], cost: Cost = FREE, grid: Grid | None = exact) -> Queue:
    queue = Queue(cost, grid)
    queue.add(submission_of(len(lengths)), [Item(text(length)) for length in lengths], 0.0)
    return queue


def submission_of(texts: int) -> Submission:
    return Submission("vector", [b""] * texts, texts, None, 0.0, None)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 300), min_size=1), st.integers(1, 512))
def test_every_batch_serves_the_first_in_line_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    queue = queue_of(lengths)
    served: list[int] = []
    while queue.entries:
        first = queue.entries[0]
        batch = queue.next_batch(1.0, budget)
        assert first in batch
        assert len(batch) == 1 or max(len(e.item) for e in batch) * len(batch) <= budget
        served += [entry.index for entry in batch]
        assert queue.tokens == sum(len(entry.item) for entry in queue.entries)
    assert sorted(served) == list(range(len(lengths)))


def test_texts_of_like_length_go_together() -> None:
    batch = queue_of([10, 200, 11, 190, 9, 12, 250]).next_batch(1.0, 48)
    assert sorted(len(entry.item) for entry in batch) == [9, 10, 11, 12]


@pytest.mark.parametrize("grid", [exact, rounded, None])
@given(lengths=st.lists(st.integers(1, 300), min_size=1), milliseconds=st.integers(1, 200))
def test_every_batch_is_work_for_the_time_given(
    grid: Grid | None, lengths: list[int], milliseconds: int
) -> None:
    queue = queue_of(lengths, COST, grid)
    while queue.entries:
        sizes = [len(entry.item) for entry in queue.next_batch(milliseconds / 1000, 10**9)]
        length = grid(1, max(sizes))[1] if grid else 0
        work = len(sizes) * COST.of(length) if grid else sum(map(COST.of, sizes))
        assert len(sizes) == 1 or work <= milliseconds / 1000 + 1e-9
        assert queue.seconds == pytest.approx(sum(COST.of(len(e.item)) for e in queue.entries))


@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=60))
def test_padding_never_costs_more_than_the_passes_it_saves(lengths: list[int]) -> None:
    sizes = [len(entry.item) for entry in queue_of(lengths, COST).next_batch(1.0, 10**9)]
    padding = len(sizes) * COST.of(max(sizes)) - sum(map(COST.of, sizes))
    assert padding <= (len(sizes) - 1) * COST.start + 1e-9


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60),
    st.floats(1e-6, 1.0),
    st.integers(1, 512),
)
def test_places_that_no_text_fills_never_cost_more_than_a_pass(
    lengths: list[int], start: float, budget: int
) -> None:
    cost = Cost(start, token=0.0001, pair=1e-7)
    queue = queue_of(lengths, cost, rounded)
    while queue.entries:
        first = queue.entries[0]
        sizes = [len(entry.item) for entry in queue.next_batch(1.0, budget)]
        assert len(first.item) in sizes
        texts, length = rounded(len(sizes), max(sizes))
        assert (texts - len(sizes)) * cost.of(length) <= start + 1e-9
        assert len(sizes) == 1 or texts * length <= budget


def test_mixed_traffic_wastes_less_than_a_twentieth_on_padding() -> None:
    lengths = np.exp(np.random.default_rng(2).uniform(np.log(4), np.log(250), 1000)).astype(int)
    queue = queue_of(lengths.tolist(), COST)
    padded = real = 0
    while queue.entries:
        sizes = [len(entry.item) for entry in queue.next_batch(COST.batch_seconds, 10**9)]
        padded += len(sizes) * max(sizes)
        real += sum(sizes)
    assert 1 - real / padded < 0.05


def test_dropping_a_job_leaves_the_others() -> None:
    submissions = [submission_of(3), submission_of(3)]
    queue = Queue(COST, None)
    for i, submission in enumerate(submissions):
        queue.add(submission, [Item(text(2, 3 * i + n)) for n in range(3)], 0.0001 * i)
    queue.withdraw(submissions[0])
    queue.withdraw(submissions[0])
    assert [entry.item.ids[0] for entry in queue.entries] == [3, 4, 5]
    assert (len(queue), queue.tokens) == (3, 6)
    assert queue.seconds == pytest.approx(3 * COST.of(2))
    assert [entry.item.ids[0] for entry in queue.next_batch(1.0, 1000)] == [3, 4, 5]
    assert (len(queue), queue.tokens, queue.seconds) == (0, 0, 0.0)


class Watched(Entry):
    """An entry that counts how often anybody looked at when it is due, or whose it is."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("due", "submission"):
            Watched.looks += 1
        return super().__getattribute__(name)


def test_a_deep_line_is_not_gone_through_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come to it, leave it, and are served from it."""
    monkeypatch.setattr("embedsvc.serving.queue.Entry", Watched)
    queue = Queue(COST, None)
    submissions = [submission_of(100) for _ in range(200)]
    Watched.looks = 0
    for submission in submissions:
        queue.add(submission, [Item(text(3))] * 100, 0.0)
    for submission in submissions[::2]:  # half of them hang up
        queue.withdraw(submission)
    texts = 100 * len(submissions)
    assert len(queue) == texts // 2
    assert Watched.looks < 250 * texts  # in order anew 200 times
    Watched.looks = 0
    for submission in submissions[1::4]:
        queue.withdraw(submission)
    served = 0
    while len(queue):
        served += len(queue.next_batch(0.02, 1000))
    assert served == texts // 4
    assert Watched.looks < 40 * texts


@given(st.lists(st.tuples(st.sampled_from("adn"), st.integers(0, 9)), max_size=40))
def test_a_line_is_in_order_whoever_comes_and_leaves(what: list[tuple[str, int]]) -> None:
    queue = Queue(COST, exact)
    waiting: list[tuple[Submission, float]] = []  # of each text, in the order of what was done
    submissions: list[Submission] = []
    for do, number in what:
        if do == "a":
            submissions.append(submission_of(8 * number))
            queue.add(submissions[-1], [Item(text(3))] * (8 * number), float(number))
            due = float(number)
            for _ in range(8 * number):
                waiting.append((submissions[-1], due))
                due += COST.of(3)
        elif do == "d" and submissions:
            submission = submissions.pop(number % len(submissions))
            queue.withdraw(submission)
            waiting = [each for each in waiting if each[0] is not submission]
        elif do == "n" and len(queue):
            batch = queue.next_batch(0.02, 60)
            waiting.sort(key=lambda each: each[1])
            assert [entry.due for entry in batch] == [due for _, due in waiting[: len(batch)]]
            waiting = waiting[len(batch) :]
        assert len(queue) == len(queue.entries) == len(waiting)
        assert queue.tokens == 3 * len(waiting)
        assert queue.seconds == pytest.approx(COST.of(3) * len(waiting))
