"""A server of tiny models whose instances stay in the states that tests want to see."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.checkpoints.progress import Progress
from embedsvc.inference.plan import Plan
from embedsvc.serving.engine import Engine
from embedsvc.serving.loader import Loader
from tests.support.app import serve
from tests.support.exo import refusal
from tests.support.tiny_registry import write_cards


class Gates:
    """What instances wait for. All are open at first."""

    def __init__(self) -> None:
        self.load = threading.Event()
        self.close = threading.Event()
        self.open()

    def open(self) -> None:
        self.load.set()
        self.close.set()


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    """Gates that loading models, half of them read, and unloading them wait at."""
    gates = Gates()
    load, close = Loader.load, Engine.close

    async def load_later(self: Loader, plan: Plan, progress: Progress) -> Engine:
        progress(plan.stored // 2, plan.stored)
        await asyncio.to_thread(gates.load.wait, 20)
        return await load(self, plan, progress)

    async def close_later(self: Engine) -> None:
        await asyncio.to_thread(gates.close.wait, 20)
        await close(self)

    monkeypatch.setattr(Loader, "load", load_later)
    monkeypatch.setattr(Engine, "close", close_later)
    return gates


@contextmanager
def serve_tiny(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """A server of the models a, b and c."""
    write_cards(folder)
    with serve(models=folder / "models.toml", **settings) as client:
        yield client


def get(client: TestClient, path: str, kind: str | None = None, *, camel: bool = True) -> Any:
    """The JSON of an answer, which exo's own class takes, if one is named."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    if kind is not None:
        assert refusal(told, kind, camel=camel) is None
    return told


def wait_for(client: TestClient, instance: str, status: str) -> dict[str, Any]:
    """The state once the instance's runner has that status."""
    while True:
        state = get(client, "/state", "State")
        if list(state["runners"].get(instance, {})) == [status]:
            return state


def message_of(answer: Response) -> dict[str, Any]:
    """The message of a stream that has one, behind the comment that exo's streams begin with."""
    first, message, rest = answer.text.split("\n\n")
    assert (first, rest) == (": keep-alive", "")
    return json.loads(message.removeprefix("data: "))
