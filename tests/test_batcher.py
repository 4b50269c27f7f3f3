"""The queue: who shares a batch with whom, who is refused, and that nobody is forgotten."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.errors import BadRequest, EmbeddingFailed, Overloaded, Unavailable
from embedsvc.inference.pass_cost import Cost
from embedsvc.serving.batcher import Batcher
from embedsvc.serving.queue import Entry, Grid, Queue, Submission
from embedsvc.texts.item import Item
from tests.support.fake_device import BAD, COST, Device, batcher, embed, exact, text, turns

FREE = Cost(start=1e9, token=1e-12, pair=1e-12)
"""A pass costs all, a text nothing: only `max_tokens` bounds a batch."""


def rounded(texts: int, longest: int) -> tuple[int, int]:
    """A pass is padded to a power of two of texts, and to a multiple of 16 tokens."""
    return 1 << (texts - 1).bit_length(), -(-longest // 16) * 16


def run(scenario: Callable[[Device], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await scenario(Device())

    asyncio.run(main())


def test_a_request_that_finds_the_device_idle_goes_at_once() -> None:
    async def scenario(device: Device) -> None:
        task = asyncio.create_task(embed(batcher(device), [text(3, 7)]))
        await turns()
        assert device.sizes == [1]
        device.gate.set()
        assert (await task).tolist() == [[7, 3]]

    run(scenario)


def test_requests_that_arrive_while_the_device_is_busy_share_a_batch() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device)
        first = asyncio.create_task(embed(asked, [text(3)]))
        await turns()
        others = [asyncio.create_task(embed(asked, [text(3, i)])) for i in range(5)]
        await turns()
        assert device.sizes == [1]
        device.gate.set()
        await first
        assert [(await task)[0, 0] for task in others] == [0, 1, 2, 3, 4]
        assert device.sizes == [1, 5]

    run(scenario)


def test_requests_of_one_moment_share_a_batch_though_the_device_is_idle() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device, slots=2)
        device.gate.set()
        await asyncio.gather(*(embed(asked, [text(3)]) for _ in range(8)))
        assert device.sizes == [8]

    run(scenario)


def test_items_of_one_head_share_a_batch_and_no_others_do() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device)
        first = asyncio.create_task(embed(asked, [text(3)]))
        await turns()
        heads = ["vector", "scores", "vector", "scores"]
        others = [asyncio.create_task(embed(asked, [text(3, i)], h)) for i, h in enumerate(heads)]
        await turns()
        device.gate.set()
        await first
        assert [(await task)[0, 0] for task in others] == [0, 1, 2, 3]
        assert (device.sizes, device.heads) == ([1, 2, 2], ["vector", "vector", "scores"])

    run(scenario)


def test_as_many_batches_run_at_once_as_there_are_slots() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device, slots=2)
        task = asyncio.create_task(embed(asked, [text(64, i) for i in range(5)]))
        await turns()
        assert device.sizes == [1, 1]
        device.gate.set()
        assert (await task)[:, 0].tolist() == [0, 1, 2, 3, 4]
        assert device.sizes == [1] * 5

    run(scenario)


def test_vectors_come_in_the_order_of_the_texts_whatever_the_batches() -> None:
    async def scenario(device: Device) -> None:
        device.gate.set()
        lengths = [30, 2, 64, 7, 7, 1, 100, 30, 12]
        vectors = await embed(batcher(device), [text(n, i) for i, n in enumerate(lengths)])
        assert vectors.tolist() == [[i, n] for i, n in enumerate(lengths)]

    run(scenario)


def test_a_short_request_is_not_held_up_by_a_long_one_that_came_first() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device, max_waiting_tokens=10**9)
        bulk = asyncio.create_task(embed(asked, [text(64)] * 1000))
        await turns()
        short = asyncio.create_task(embed(asked, [text(64, 9)]))
        await turns()
        device.gate.set()
        await short
        assert len(device.batches) < 50
        assert not bulk.done()
        await bulk

    run(scenario)


def test_a_client_that_leaves_gives_up_its_place() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device)
        running = asyncio.create_task(embed(asked, [text(3)]))
        await turns()
        leaving = asyncio.create_task(embed(asked, [text(3, 5)] * 4))
        staying = asyncio.create_task(embed(asked, [text(3, 6)]))
        await turns()
        assert asked.waiting_tokens == 15
        leaving.cancel()
        await turns()
        assert asked.waiting_tokens == 3
        device.gate.set()
        await running
        assert (await staying).tolist() == [[6, 3]]
        assert device.sizes == [1, 1]

    run(scenario)


def test_a_full_queue_refuses_with_when_to_come_back() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device, max_waiting_tokens=100)
        running = asyncio.create_task(embed(asked, [text(60)]))
        await turns()
        waiting = asyncio.create_task(embed(asked, [text(60)]))
        await turns()
        with pytest.raises(Overloaded) as caught:
            await embed(asked, [text(60)])
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 59
        device.gate.set()
        await asyncio.gather(running, waiting)

    run(scenario)


def test_a_request_larger_than_the_line_is_served_when_nobody_waits() -> None:
    async def scenario(device: Device) -> None:
        device.gate.set()
        vectors = await embed(batcher(device, max_waiting_tokens=10), [text(20)] * 3)
        assert len(vectors) == 3

    run(scenario)


def test_only_the_text_at_fault_fails() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device, max_batch_tokens=1000)
        device.gate.set()
        good = [asyncio.create_task(embed(asked, [text(3, i)])) for i in range(6)]
        bad = asyncio.create_task(embed(asked, [text(3, 8), text(3, BAD)]))
        for i, task in enumerate(good):
            assert (await task).tolist() == [[i, 3]]
        with pytest.raises(EmbeddingFailed):
            await bad

    run(scenario)


def test_an_error_meant_for_the_client_arrives_as_it_is() -> None:
    async def scenario(_: Device) -> None:
        async def compute(_: list[Item], head: str) -> list[bytes]:
            raise BadRequest("no such token")

        asked = Batcher(
            compute, cost=COST, grid=exact, slots=1, max_batch_tokens=64, max_waiting_tokens=100
        )
        with pytest.raises(BadRequest, match="no such token"):
            await embed(asked, [text(3)])

    run(scenario)


def test_closing_refuses_what_waits_and_finishes_what_runs() -> None:
    async def scenario(device: Device) -> None:
        asked = batcher(device)
        running = asyncio.create_task(embed(asked, [text(3)]))
        await turns()
        waiting = asyncio.create_task(embed(asked, [text(3)]))
        await turns()
        closing = asyncio.create_task(asked.close())
        await turns()
        with pytest.raises(Unavailable):
            await waiting
        assert not closing.done()
        device.gate.set()
        await closing
        assert len(await running) == 1
        with pytest.raises(Unavailable):
            await embed(asked, [text(3)])

    run(scenario)


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


def test_empty_places_count_as_padding() -> None:
    async def scenario(device: Device) -> None:
        device.gate.set()
        asked = Batcher(
            device.run,
            cost=FREE,
            grid=rounded,
            slots=1,
            max_batch_tokens=1000,
            max_waiting_tokens=1000,
        )
        await embed(asked, [text(10)] * 3)
        assert (device.sizes, asked.tokens, asked.padding) == ([3], 30, 4 * 16 - 30)

    run(scenario)


def test_mixed_traffic_wastes_less_than_a_twentieth_on_padding() -> None:
    lengths = np.exp(np.random.default_rng(2).uniform(np.log(4), np.log(250), 1000)).astype(int)
    queue = queue_of(lengths.tolist(), COST)
    padded = real = 0
    while queue.entries:
        sizes = [len(entry.item) for entry in queue.next_batch(COST.batch, 10**9)]
        padded += len(sizes) * max(sizes)
        real += sum(sizes)
    assert 1 - real / padded < 0.05


def test_free_slots_share_what_waits_if_it_is_enough_for_both() -> None:
    async def scenario(device: Device) -> None:
        device.gate.set()
        asked = batcher(device, slots=2, max_batch_tokens=10_000, max_waiting_tokens=10_000)
        await embed(asked, [text(50)] * 8)  # 42 ms of work where starting takes 5
        assert device.sizes == [4, 4]
        device.batches.clear()
        await embed(asked, [text(10)] * 8)  # 8 ms
        assert device.sizes == [8]

    run(scenario)


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


def test_who_is_sent_away_is_told_how_long_the_line_takes_at_the_pace_of_late() -> None:
    """The machine has become four times slower than it was when the model was loaded."""

    async def scenario(device: Device) -> None:
        now = 0.0

        async def compute(items: list[Item], head: str) -> list[bytes]:
            nonlocal now
            results = await device.run(items, head)
            now += 4 * (cost.start + sum(cost.of(len(item)) for item in items))
            return results

        cost = Cost(start=1.0, token=0.01, pair=1e-9)
        asked = Batcher(
            compute,
            cost=cost,
            grid=exact,
            slots=1,
            max_batch_tokens=100,
            max_waiting_tokens=500,
            clock=lambda: now,
        )
        device.gate.set()
        for _ in range(64):
            await embed(asked, [text(100)])
        device.gate.clear()
        waiting = [asyncio.create_task(embed(asked, [text(100)]))]
        await turns()
        waiting += [asyncio.create_task(embed(asked, [text(100)])) for _ in range(5)]
        await turns()
        with pytest.raises(Overloaded) as caught:
            await embed(asked, [text(100)])
        assert caught.value.headers["Retry-After"] in ("20", "21")  # 5 texts of a second, by four
        device.gate.set()
        await asyncio.gather(*waiting)
        assert asked.queue_seconds.count == asked.forward_seconds.count == 70
        assert asked.forward_seconds.mean == pytest.approx(8, rel=1e-3)

    run(scenario)
