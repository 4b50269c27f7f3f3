"""Whether the server does what it is there for, found out rather than assumed.

Models that have computed nothing lately are tried with something tiny. A thread of its own looks at
how long each piece of work has been on the device, and whether the event loop still turns: what
hangs is told with its stack, then `/ready` says so, then `/health`, and at last the process ends
itself, since whoever keeps it running can start it again and nothing else will help.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager

from embedsvc.daemon.sd_notify import notify
from embedsvc.exits import EXIT_HUNG
from embedsvc.inference.device import Device, Work
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import Registry

TICK_SECONDS = 1.0
"""From one look to the next."""
FRESH_SECONDS = 5.0
"""For so long after a model has computed something, `/ready` believes that it still can."""
IDLE_SECONDS = 30.0
"""A model that has computed nothing for so long is tried, though nobody asks."""
ANSWER_SECONDS = 2.0
"""How long `/ready` waits for a model that is tried."""
WARN_SHARE = 0.25
"""Of the time after which something hangs, the part after which the server is not ready."""
LAST_SECONDS = 5.0
"""From when `/health` says that it is over until it is."""
SLOWER = 10.0
"""So many times what it was to take, on top, is work given before it is taken for hanging."""

log = logging.getLogger(__name__)


def end_process() -> None:
    """End it, whatever its threads are stuck in, when the log is written."""
    logging.shutdown()
    os._exit(EXIT_HUNG)


class Watch:
    """Looks after one registry and its device."""

    def __init__(
        self,
        registry: Registry,
        *,
        hang_seconds: float,
        end: Callable[[], None] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What is overdue by `hang_seconds` hangs; then `end` is called, on any thread."""
        self.over: str | None = None
        """Why there is no hope left, once there is none."""
        self.late: str | None = None
        """What takes suspiciously long, while it does."""
        self.stopping = False
        """Whether the server was told to stop."""
        self.busy_seconds = 0.0
        """How long the oldest piece of work has been on the device."""
        self._registry = registry
        self._device: Device = registry.device
        self._hang_seconds = hang_seconds
        self._end = end
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._broken: dict[Engine, str] = {}  # what it did when it was tried
        self._checks: dict[Engine, asyncio.Task[None]] = {}
        self._over_for: Work | str | None = None
        # Ages in seconds that this process was awake: suspended, it does not hang.
        self._works: dict[Work, float] = {}
        self._told: set[Work | str] = set()
        self._loop_age = self._broken_age = self._over_age = 0.0
        self._pings = "WATCHDOG_USEC" in os.environ
        self._stop = threading.Event()
        self._own = threading.get_ident()

    @property
    def well(self) -> bool:
        """Whether nothing is late, hangs or is broken, as far as is known."""
        return not (self.over or self.late or self._broken)

    @contextmanager
    def watching(self) -> Generator[None]:
        """While it watches."""
        thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        thread.start()
        trying = asyncio.create_task(self._try_idle())
        try:
            yield
        finally:
            trying.cancel()
            self._stop.set()
            thread.join()

    async def trouble(self) -> str | None:
        """Why requests should not be sent here; None if they may."""
        if self.stopping:
            return "The server is shutting down."
        self._forget_unloaded()
        if self.over or self.late:
            return self.over or self.late
        missing = self._registry.missing()
        if missing:
            return f"Not loaded: {', '.join(missing)}."
        checks = [
            self._check(model, engine)
            for model, engine in self._registry.engines().items()
            if not engine.computed_within(FRESH_SECONDS)
        ]
        if checks:
            _, waiting = await asyncio.wait(checks, timeout=ANSWER_SECONDS)
            # Work that is not late may well keep the device from answering for a while.
            if waiting and not self._device.working:
                return "The device does not answer."
        return next(iter(self._broken.values()), self.late)

    def look(self, elapsed: float) -> None:
        """Look at everything once, so many seconds after the last time."""
        self._loop_age += elapsed
        self._loop.call_soon_threadsafe(self._beat)
        before, working = self._works, self._device.working
        self._works = {work: before[work] + elapsed if work in before else 0.0 for work in working}
        broken = list(self._broken.values())
        self._broken_age = self._broken_age + elapsed if broken else 0.0
        late: str | None = None
        self.busy_seconds = max(self._works.values(), default=0.0)
        for work, age in self._works.items():
            late = self._judge(work, "The device", age, work.expected, work.thread) or late
        late = self._judge("loop", "The event loop", self._loop_age, 0.0, self._own) or late
        if broken:
            self._judge("models", broken[0], self._broken_age, 0.0, None)
        self.late = late
        self._told.intersection_update({*self._works, "loop", "models"} if late else {"models"})
        if self._over_for == "models" and not broken:
            self.over = self._over_for = None  # what was broken is loaded no longer, or computes
            self._over_age = 0.0
        if self.over:
            self._over_age += elapsed
            if self._over_age > LAST_SECONDS:
                log.critical("the process ends itself, with exit code %d", EXIT_HUNG)
                self._end()

    def _judge(
        self, what: Work | str, name: str, age: float, expected: float, thread: int | None
    ) -> str | None:
        """What to say of something that has been going on for so long, if it is too long."""
        limit = self._hang_seconds + SLOWER * expected
        if age <= WARN_SHARE * limit:
            return None
        said = f"{name} has been at it for {age:.0f} s." if thread else name
        if thread and what not in self._told:
            self._told.add(what)
            log.error("%s It is at:\n%s", said, stack(thread))
        if age > limit and self.over is None:
            self.over, self._over_for = said, what
            log.critical("%s There is no hope left.", said)
        return said

    def _watch(self) -> None:
        last = self._clock()
        while not self._stop.wait(TICK_SECONDS):
            now = self._clock()
            # A machine that slept, or a clock that jumped, is no time in which anything hung.
            self.look(min(max(now - last, 0.0), 2 * TICK_SECONDS))
            last = now

    def _beat(self) -> None:
        self._loop_age = 0.0
        self._forget_unloaded()
        if self._pings and not self.over:
            notify("WATCHDOG=1")

    async def _try_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 4)
            for model, engine in self._registry.engines().items():
                if engine in self._broken or not engine.computed_within(IDLE_SECONDS):
                    self._check(model, engine)

    def _forget_unloaded(self) -> None:
        """An engine that is loaded no longer computes nothing, and nothing wrong."""
        if self._broken:
            loaded = set(self._registry.engines().values())
            self._broken = {e: said for e, said in self._broken.items() if e in loaded}

    def _check(self, model: str, engine: Engine) -> "asyncio.Task[None]":
        """Try a model, unless that is being done."""
        task = self._checks.get(engine)
        if task is None:
            task = self._checks[engine] = asyncio.create_task(self._try(model, engine))
            task.add_done_callback(lambda _: self._checks.pop(engine, None))
        return task

    async def _try(self, model: str, engine: Engine) -> None:
        try:
            await engine.check()
        except Exception as error:
            if self._registry.engines().get(model) is not engine:
                return  # it was unloaded meanwhile
            if engine not in self._broken:
                log.exception("model %s is broken", model)
            self._broken[engine] = f"The model `{model}` is broken: {error}"
        else:
            self._broken.pop(engine, None)


def stack(thread: int | None) -> str:
    """Where a thread is, innermost last."""
    frame = sys._current_frames().get(thread or 0)  # pyright: ignore[reportPrivateUsage] - there is no other way
    return "".join(traceback.format_stack(frame)).rstrip() if frame else "(nowhere)"
