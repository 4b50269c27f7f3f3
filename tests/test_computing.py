"""The one way from a request to its answer: what becomes of it when its client hangs up."""

import asyncio
from typing import Any

import pytest

from embedsvc.errors import ClientGone
from embedsvc.web import computing


class Client:
    """Hangs up when told to."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Any:
        await self.gone


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "PATIENCE", 0.0)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_work_of_a_client_who_hangs_up_is_cancelled() -> None:
    async def main() -> None:
        client = Client()

        async def work() -> None:
            await turns()
            client.gone.set_result(None)
            await asyncio.sleep(60)

        with pytest.raises(ClientGone):
            await computing._while_connected(client, work())  # type: ignore[arg-type]
        await turns()  # the task itself goes on

    asyncio.run(main())


def test_a_client_who_hangs_up_just_as_the_work_ends_stops_nothing_any_more() -> None:
    async def main() -> None:
        client = Client()

        async def work() -> str:
            await turns()
            client.gone.set_result(None)
            await asyncio.sleep(0)  # it is told in the turn in which this ends
            return "vectors"

        found = await computing._while_connected(client, work())  # type: ignore[arg-type]
        await turns()  # the answer is written
        assert found == "vectors"

    asyncio.run(main())
