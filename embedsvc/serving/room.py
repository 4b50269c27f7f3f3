"""Room for models in memory: which are unloaded, so that another can be loaded."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from embedsvc.errors import Stopped
from embedsvc.inference.plan import Plan
from embedsvc.serving.instance import Instance
from embedsvc.serving.model_memory import ModelMemory


class Instances(Protocol):
    """All instances of a server. The registry is one."""

    def instances(self) -> list[Instance]: ...

    def unload(self, instance: Instance, /) -> asyncio.Task[None]: ...


class Room:
    """Finds room for instances one after the other, since each may unload others."""

    def __init__(self, memory: ModelMemory, all_instances: Instances) -> None:
        self._memory = memory
        self._all = all_instances
        self._turn = asyncio.Lock()

    async def find(self, instance: Instance, plan: Plan) -> None:
        """Take memory for an instance, and unload others for it. See `FindRoom`."""
        async with self._turn:
            while True:
                if instance.abandoned or (instance.closing and not instance.users):
                    raise Stopped(f"model `{instance.card.id}` was unloaded before it was ready")
                if self._memory.fits(plan.size):
                    break
                others = [each for each in self._all.instances() if each is not instance]
                others = [each for each in others if each.size]
                kept = sum(each.size for each in others if each.pinned and not each.closing)
                self._memory.check(instance.card.id, plan.size, kept)
                await asyncio.wait([self._all.unload(_next_to_go(others))])
            instance.size = plan.size
            self._memory.take(instance, plan.size)


def _next_to_go(instances: Iterable[Instance]) -> Instance:
    """The instance to unload next, to make room.

    It is one that is closing already, else the idle one that was used least lately, else a busy
    one. That goes once its requests are answered. If it were spared, models in constant use would
    keep others out for ever.
    """
    return min(
        (each for each in instances if each.closing or not each.pinned),
        key=lambda each: (not each.closing, each.users > 0, each.state != "ready", each.last_used),
    )
