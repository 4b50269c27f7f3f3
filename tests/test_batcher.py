"""The batcher: who shares a batch with whom, who is refused, and that nobody is forgotten."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from embedsvc.errors import BadRequest, EmbeddingFailed, Overloaded, Unavailable
from embedsvc.inference.pass_cost import Cost
from embedsvc.serving.batcher import Batcher
from embedsvc.texts.item import Item
from tests.support.fake_device import (
    BAD,
    COST,
    FREE,
    Device,
    batcher,
    embed,
    exact,
    rounded,
    text,
    turns,
)


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
