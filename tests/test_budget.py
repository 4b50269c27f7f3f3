"""What requests in flight may hold together: no client takes it from the others."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from embedsvc.bounds import ANSWERS_IN_FLIGHT, BODIES_IN_FLIGHT
from embedsvc.errors import TooManyBytes
from embedsvc.telemetry.record import Record, current
from embedsvc.web import budget
from embedsvc.web.budget import STALLED_SECONDS, Budget
from tests.support.clock import Clock
from tests.support.project import ROOT


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    return clock


class Client:
    """A request that holds what it is told to, in a task of its own, as the server runs them."""

    def __init__(self, held: Budget) -> None:
        self.record = Record(0.0, b"-", "POST", "/")
        self.record.hang_up = self._hang_up
        self.hung_up = False
        self.refused: Exception | None = None
        self._budget = held
        self._sizes: asyncio.Queue[int] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._run())

    async def holds(self, size: int) -> None:
        self._sizes.put_nowait(size)
        for _ in range(5):
            await asyncio.sleep(0)

    def _hang_up(self) -> None:
        self.hung_up = True

    async def _run(self) -> None:
        current.set(self.record)
        try:
            while True:
                self._budget.hold(await self._sizes.get())
        except TooManyBytes as error:
            self.refused = error
        except asyncio.CancelledError:
            self.refused = self.record.gave_way
        finally:
            self._budget.release(self.record)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_who_asks_for_more_than_there_is_is_refused(clock: Clock) -> None:
    async def story() -> None:
        held = Budget(100)
        first, second, third = Client(held), Client(held), Client(held)
        await first.holds(50)
        await second.holds(50)
        await third.holds(1)
        assert third.refused is None  # he who holds most gave way
        assert isinstance(first.refused, TooManyBytes)
        assert held.used == 51
        await third.holds(50)
        assert second.refused is None
        await third.holds(51)
        assert isinstance(third.refused, TooManyBytes)  # nobody holds more than he does
        assert held.used == 50

    run(story)


def test_a_client_that_holds_all_is_no_hindrance_to_many(clock: Clock) -> None:
    async def story() -> None:
        held = Budget(100)
        greedy = [Client(held) for _ in range(2)]
        for client in greedy:
            await client.holds(50)
        others = [Client(held) for _ in range(10)]
        for client in others:
            await client.holds(10)
        assert not any(client.refused for client in others)
        assert all(client.refused for client in greedy)
        assert held.used == 100

    run(story)


def test_who_does_not_read_is_hung_up_on_before_anybody_is_refused(clock: Clock) -> None:
    async def story() -> None:
        held = Budget(100)
        reads, reads_not, waits = Client(held), Client(held), Client(held)
        for client in (reads, reads_not):
            await client.holds(40)
            client.record.status = 200
        clock.now += STALLED_SECONDS
        await reads.holds(39)
        await waits.holds(30)
        assert reads_not.hung_up
        assert not reads.hung_up
        assert not waits.refused
        assert held.used == 69

    run(story)


def test_an_answer_that_is_read_is_not_taken_away(clock: Clock) -> None:
    async def story() -> None:
        held = Budget(100)
        reads, other = Client(held), Client(held)
        await reads.holds(90)
        reads.record.status = 200
        clock.now += STALLED_SECONDS / 2
        await other.holds(20)
        assert not reads.hung_up
        assert not reads.refused
        assert isinstance(other.refused, TooManyBytes)
        assert held.used == 90

    run(story)


def test_to_hold_less_is_never_refused(clock: Clock) -> None:
    async def story() -> None:
        held = Budget(100)
        one, other = Client(held), Client(held)
        await one.holds(60)
        await other.holds(40)
        held.limit = 50
        await one.holds(55)
        assert held.used == 95
        assert not one.refused
        assert not other.refused

    run(story)


def test_what_belongs_to_no_request_is_not_counted() -> None:
    held = Budget(1)
    held.hold(100)
    assert held.used == 0


def test_the_page_names_the_bounds() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    assert BODIES_IN_FLIGHT == 8
    assert "| bodies of all requests in flight | eight times that |" in page
    answers = "| answers of all requests, written or waiting to be read |"
    assert f"{answers} {ANSWERS_IN_FLIGHT >> 20} MiB |" in page
