"""How much memory all requests in flight hold together, and which gives way when it is too much.

One client cannot take all of it from the others: first a client that does not read its answer is
disconnected, then the request that holds most is answered 429. Requests that hold little are not
counted, because there are no more of them than connections.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from embedsvc.errors import TooManyBytes
from embedsvc.telemetry.record import Record, current

SMALL = 16 << 10
"""Bytes that a request may hold without being counted, whatever the others hold."""
STALLED_SECONDS = 1.0
"""A client that has read nothing for so long counts as one that does not read its answer."""


@dataclass(slots=True, eq=False)
class Holding:
    """What one request holds."""

    record: Record
    task: asyncio.Task[Any] | None
    bytes: int = 0
    moved: float = 0.0
    """When `bytes` last changed, by `time.monotonic`."""


class Budget:
    """A limit on what all requests hold of one sort, in bytes. It is used on the event loop
    alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[Record, Holding] = {}

    def hold(self, size: int) -> None:
        """Set how many bytes the current request holds in all, at most until it is over.

        Raises `TooManyBytes` if there is no room for them and no other request gives way. It holds
        nothing then.
        """
        record = current.get()
        if record is None:
            return
        holding = self._held.get(record)
        if holding is None:
            holding = self._held[record] = Holding(record, asyncio.current_task())
        grows = size > holding.bytes
        self.used += size - holding.bytes
        holding.bytes = size
        holding.moved = now = time.monotonic()
        while grows and self.used > self.limit:
            other = self._next_to_go(holding, now)
            if other is None:
                self.release(record)
                raise TooManyBytes(self.limit)
            self._end(other)

    def release(self, record: Record) -> None:
        """Forget what a request held that is over."""
        holding = self._held.pop(record, None)
        if holding is not None:
            self.used -= holding.bytes

    def _next_to_go(self, asking: Holding, now: float) -> Holding | None:
        """The request that is to give way to the asking one, if there is one."""
        others = [each for each in self._held.values() if each is not asking]
        answered = [each for each in others if each.record.status]
        stalled = min(answered, key=lambda each: each.moved, default=None)
        if stalled is not None and now - stalled.moved >= STALLED_SECONDS:
            return stalled
        waiting = [each for each in others if not each.record.status]
        largest = max(waiting, key=lambda each: each.bytes, default=None)
        return largest if largest is not None and largest.bytes > asking.bytes else None

    def _end(self, holding: Holding) -> None:
        """End a request. What it held counts as free at once, though the task ends a little
        later."""
        self.release(holding.record)
        if holding.record.status and holding.record.hang_up is not None:
            holding.record.hang_up()
        elif holding.task is not None:
            holding.record.gave_way = TooManyBytes(self.limit)
            holding.task.cancel()


class InFlight:
    """What requests in flight hold, by sort. There is one object for a server's life."""

    def __init__(self, *, bodies: int, answers: int) -> None:
        self.bodies = Budget(bodies)
        self.answers = Budget(answers)
        self.writing = asyncio.Lock()
        """Held while a piece of a long answer is written, so that only one is at a time."""

    def release(self, record: Record) -> None:
        """Forget what a request held that is over."""
        self.bodies.release(record)
        self.answers.release(record)


in_flight: ContextVar[InFlight | None] = ContextVar("in_flight", default=None)
"""What is held at the server that the current request came to."""


@asynccontextmanager
async def turn_to_write() -> AsyncGenerator[None]:
    """Wait until no other long answer is being written, and let other requests go on afterwards.

    However many clients get long answers at once, others wait for one piece of one answer.
    """
    of_server = in_flight.get()
    async with of_server.writing if of_server is not None else nullcontext():
        yield
        await asyncio.sleep(0)


def hold_answer(size: int) -> None:
    """Set how many bytes of its answer the current request holds. Raises `TooManyBytes`."""
    of_server = in_flight.get()
    if of_server is not None:
        of_server.answers.hold(size)
