"""The life of instances under any order of events: no request is lost, no instance is left over.

What is loaded is made of stubs here, so that many orders are tried; the registry, its instances and
its memory are the real ones.
"""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embedsvc.catalog.cards import Card, Cards
from embedsvc.errors import CheckpointError, Stopped, Unavailable
from embedsvc.serving.instance import Instance
from embedsvc.serving.registry import Registry
from embedsvc.settings import Settings

NAMES = "abc"
KEPT = {"a": None, "b": 0.0, "c": None}
SIZE = 10
ROOM = 25
"""For two of them."""


class StubEngine:
    """Knows whether it was closed, and who held it then."""

    fingerprint, dimensions, dtype = "f", 4, "float32"
    checkpoint: Any = SimpleNamespace(
        max_tokens=1,
        model_type="stub",
        pooling=("mean",),
        pooling_source="its card",
        task="embed",
        tasks=("embed",),
        prompts={},
    )
    open = 0

    def __init__(self, steps: asyncio.Semaphore) -> None:
        self.closed = False
        self._steps = steps
        type(self).open += 1

    async def refuse(self) -> None:
        pass

    async def close(self) -> None:
        assert not self.closed
        self.closed = True
        await self._steps.acquire()
        type(self).open -= 1


class StubLoader:
    """Goes on by one step when it is told to, as does closing."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)
        self.failing: set[str] = set()

    async def fetch(self, card: Card, told: object, stop: Any) -> Any:
        await self.steps.acquire()
        if stop.is_set():
            raise Stopped("stopped")
        checkpoint = SimpleNamespace(config={}, max_tokens=1, model_type="stub", tasks=("embed",))
        return SimpleNamespace(card=card, size=SIZE, stored=SIZE, checkpoint=checkpoint)

    async def load(self, plan: Any, told: object) -> Any:
        await self.steps.acquire()
        if plan.card.id in self.failing:
            raise CheckpointError("broken")
        return StubEngine(self.steps)

    def close(self) -> None:
        pass


def cards(version: dict[str, str | None]) -> Cards:
    """A file in which each model is of that version, or not at all."""
    found = {
        name: Card(
            id=name, path=Path("x"), pin=name == "a", keep_alive=KEPT[name], max_tokens=len(v)
        )
        for name, v in version.items()
        if v is not None
    }
    return Cards(Path("models.toml"), found, found)


class LifeCycle(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        StubEngine.open = 0
        self.loop = asyncio.new_event_loop()
        self.versions: dict[str, str | None] = dict.fromkeys(NAMES, "v")
        self.requests: list[asyncio.Task[None]] = []
        self.holding: list[asyncio.Event] = []
        self.held: list[StubEngine] = []
        self.seen: set[Instance] = set()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        ops = SimpleNamespace(name="stub", memory=2 * ROOM, pass_memory=ROOM)
        device: Any = SimpleNamespace(dtype=lambda _: "float32", ops=ops)
        self.loader = StubLoader()
        self.registry = Registry(cards(self.versions), device, Settings(max_memory=ROOM))
        self.registry._loader = self.loader  # type: ignore[assignment]

    def _turn(self) -> None:
        """Let everything go as far as it goes by itself."""

        async def turn() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        self.seen |= set(self.registry.instances())

    async def _request(self, name: str, over: asyncio.Event) -> None:
        async with self.registry.use(name) as engine:
            stub: Any = engine
            self.held.append(stub)
            try:
                await over.wait()
                assert not stub.closed, "unloaded under a request"
            finally:
                self.held.remove(stub)

    @rule(name=st.sampled_from(NAMES))
    def request(self, name: str) -> None:
        if name not in self.registry.cards.by_id:
            return

        async def ask() -> None:
            self.holding.append(asyncio.Event())
            self.requests.append(asyncio.create_task(self._request(name, self.holding[-1])))

        self.loop.run_until_complete(ask())
        self._turn()

    @rule(index=st.integers(0, 9))
    def answer(self, index: int) -> None:
        if self.holding:
            self.holding.pop(index % len(self.holding)).set()
        self._turn()

    @rule(index=st.integers(0, 9))
    def hang_up(self, index: int) -> None:
        if self.requests:
            self.requests[index % len(self.requests)].cancel()
        self._turn()

    @rule(steps=st.integers(1, 4))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.loader.steps.release()
        self._turn()

    @rule(name=st.sampled_from(NAMES), keep_alive=st.sampled_from([None, 0.0, -1.0]))
    def load(self, name: str, keep_alive: float | None) -> None:
        async def start() -> None:
            card = self.registry.cards.by_id.get(name)
            if card is not None:
                self.registry.start(card, keep_alive=keep_alive)

        self.loop.run_until_complete(start())
        self._turn()

    @rule(index=st.integers(0, 9))
    def unload(self, index: int) -> None:
        async def unload() -> None:
            instances = self.registry.instances()
            if instances:
                self.registry.unload(instances[index % len(instances)])

        self.loop.run_until_complete(unload())
        self._turn()

    @rule(name=st.sampled_from(NAMES))
    def fail_or_not(self, name: str) -> None:
        self.loader.failing ^= {name}

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from(["v", "vv", None]))
    def reload(self, name: str, version: str | None) -> None:
        async def reload() -> None:
            before = self.registry.cards.by_id
            self.versions[name] = version
            self.registry.cards = cards(self.versions)
            for old in before.values():
                new = self.registry.cards.by_id.get(old.id)
                if new != old:
                    self.registry.replace(old, new)

        self.loop.run_until_complete(reload())
        self._turn()

    @invariant()
    def memory_is_what_instances_hold(self) -> None:
        instances = self.registry.instances()
        memory = self.registry.memory
        assert memory.used == sum(each.size for each in instances) <= ROOM
        assert len(instances) == len({each.id for each in instances})
        assert StubEngine.open <= ROOM // SIZE
        assert all(not engine.closed for engine in self.held)
        for gone in self.seen - set(instances):
            assert gone.over
            assert gone.engine is None
            assert not gone.size

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def end() -> None:
            for event in self.holding:
                event.set()
            for _ in range(100):
                self.loader.steps.release()
            async with asyncio.timeout(5):
                done = await asyncio.gather(*self.requests, return_exceptions=True)
                await self.registry.close()
            for answer in done:
                # Served, hung up, or refused since the model is broken or its download was stopped.
                assert answer is None or isinstance(answer, Unavailable | asyncio.CancelledError)
                assert str(answer or "") in ("", "broken", "stopped")
            assert StubEngine.open == 0
            assert {each.state for each in self.registry.instances()} <= {"failed"}
            assert self.registry.memory.used == 0

        try:
            self.loop.run_until_complete(end())
        finally:
            self.loop.close()


logging.getLogger("hypothesis").setLevel(logging.WARNING)
LifeCycle.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_no_order_of_events_loses_a_request_or_leaves_an_instance = LifeCycle.TestCase
