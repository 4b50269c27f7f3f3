"""A registry over tiny models, whose loading can be held up and made to fail."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.progress import Progress
from embedsvc.errors import CheckpointError
from embedsvc.inference.device import Device
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.serving.engine import Engine
from embedsvc.serving.instance import Instance, State
from embedsvc.serving.loader import Loader
from embedsvc.serving.registry import Registry
from embedsvc.settings import Settings
from tests.support.checkpoints import write_bert


class GatedLoader(Loader):
    """A loader that waits until its gate is open, and fails for the models in `broken`."""

    def __init__(self, device: Device, settings: Settings) -> None:
        super().__init__(device, settings)
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.loads: list[str] = []
        self.broken: set[str] = set()

    async def load(self, plan: Plan, progress: Progress) -> Engine:
        model = plan.checkpoint.card.id
        self.loads.append(model)
        self.called.set()
        await self.gate.wait()
        if model in self.broken:
            raise CheckpointError(f"model `{model}` is broken")
        return await super().load(plan, progress)


class TinyRegistry(Registry):
    """A registry with short ways to what tests ask most."""

    def __init__(self, folder: Path, device: Device, settings: Settings) -> None:
        super().__init__(read_cards(folder / "models.toml"), device, settings)
        self.loader = self._loader = GatedLoader(device, settings)

    def named(self, name: str) -> Card:
        return self.cards.by_name[name]

    async def load(self, name: str, **settings: Any) -> Instance:
        instance = self.start(self.named(name), **settings)
        await instance.loaded()
        return instance

    async def embed(self, name: str, text: str = "hello") -> NDArray[np.float32]:
        async with self.use(name) as engine:
            return (await engine.embed([text])).vectors

    def states(self) -> dict[str, State]:
        return {each.card.id: each.state for each in self.instances()}


async def become(instance: Instance, *states: State) -> None:
    """Wait until an instance is in one of these states."""
    async for now in instance.changes():
        if now.state in states:
            return
    assert instance.state in states, instance.state


def write_cards(folder: Path, names: Sequence[str] = "abc", **about: str) -> int:
    """Write a cards file of tiny models, with more lines for some cards; return a model's bytes."""
    if not (folder / "tiny").exists():
        write_bert(folder / "tiny")
    cards = [f"[models.{name}]\npath = 'tiny'\n" + about.get(name, "") + "\n" for name in names]
    (folder / "models.toml").write_text("".join(cards))
    checkpoint = open_checkpoint(Card(id="tiny", path=folder / "tiny"))
    return make_plan(checkpoint, "float32", backend="numpy").size


@asynccontextmanager
async def open_registry(folder: Path, **settings: Any) -> AsyncGenerator[TinyRegistry]:
    """Open a registry of the folder's models.toml."""
    device = Device(lambda _: NumpyOps(), workers=2)
    registry = TinyRegistry(folder, device, Settings(**settings))
    try:
        async with asyncio.timeout(20):
            yield registry
    finally:
        registry.loader.gate.set()
        await registry.close()
        device.close()
