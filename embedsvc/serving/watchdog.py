"""The watchdog: it finds out whether the server still computes, and ends it when it hangs.

Models that have computed nothing lately are tried with two tokens. A thread of its own looks at how
long each piece of work has been on the device, and whether the event loop still turns. Where
something hangs, its stack is logged and `/ready` says so, then `/health`, and at last the process
ends itself: whoever keeps it running can start it again, and nothing else would help.
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
from dataclasses import dataclass
from typing import Literal, Protocol

from embedsvc.daemon.sd_notify import notify
from embedsvc.exits import EXIT_HUNG
from embedsvc.inference.device import Device, Work
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import Registry

TICK_SECONDS = 1.0
"""The time between two looks."""
FRESH_SECONDS = 5.0
"""For so long after a model has computed something, `/ready` does not try it again."""
IDLE_SECONDS = 30.0
"""A model that has computed nothing for so long is tried, even if nobody asks `/ready`."""
ANSWER_SECONDS = 2.0
"""How long `/ready` waits for models that are tried."""
WARN_SHARE = 0.25
"""The server is not ready after this share of the time after which something hangs."""
LAST_SECONDS = 5.0
"""How long `/health` says that something hangs, before the process ends."""
SLOWER = 10.0
"""Work hangs after `hang_seconds` plus this many times its expected duration."""

log = logging.getLogger(__name__)


def end_process() -> None:
    """Write out the log and end the process, whatever its threads are stuck in."""
    logging.shutdown()
    os._exit(EXIT_HUNG)


class End(Protocol):
    """Ends the process, from any thread. `end_process` is one."""

    def __call__(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something that may hang, or stay broken for good."""

    cause: Work | Literal["loop", "models"]
    """The same at every look."""
    text: str
    """What `/ready`, `/health` and the log say of it."""
    age: float
    """Seconds that it has been going on."""
    limit: float
    """Seconds after which it hangs."""
    thread: int | None = None
    """The thread that it occupies, if it occupies one."""

    @property
    def late(self) -> bool:
        return self.age > WARN_SHARE * self.limit

    @property
    def hangs(self) -> bool:
        return self.age > self.limit


class Watch:
    """Watches over one registry and its device."""

    def __init__(
        self,
        registry: Registry,
        *,
        hang_seconds: float,
        end: End = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What is overdue by `hang_seconds` hangs. Then `end` is called."""
        self.over: str | None = None
        """What hangs or stays broken for good, so that the process has to end; else None."""
        self.late: str | None = None
        """What takes suspiciously long, as long as it does; else None."""
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
        self._broken: dict[Engine, str] = {}
        """What to say of each engine that failed when it was tried last."""
        self._checks: dict[Engine, asyncio.Task[None]] = {}
        self._over_cause: Work | str | None = None
        self._logged: set[Work | str] = set()
        """What is late and in the log already."""
        # Ages are seconds in which this process was awake: while it is suspended, nothing hangs.
        self._works: dict[Work, float] = {}
        """How long each piece of work has been on the device."""
        self._loop_age = self._broken_age = self._over_age = 0.0
        self._pings = "WATCHDOG_USEC" in os.environ
        """Whether systemd wants to hear that the event loop turns."""
        self._stop = threading.Event()
        self._loop_thread = threading.get_ident()

    @property
    def well(self) -> bool:
        """Whether nothing that is known of is late, hangs or is broken."""
        return not (self.over or self.late or self._broken)

    @contextmanager
    def watching(self) -> Generator[None]:
        """A context in which it watches."""
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
        """Why the server is not ready for requests; None if it is."""
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
        """Look at everything once, so many seconds after the last look."""
        models = self._broken_models(elapsed)
        self._judge([*self._device_work(elapsed), self._event_loop(elapsed), *models])
        if self._over_cause == "models" and not models:
            # What was broken computes again, or was unloaded.
            self.over = self._over_cause = None
            self._over_age = 0.0
        if self.over:
            self._over_age += elapsed
            if self._over_age > LAST_SECONDS:
                log.critical("the process ends itself, with exit code %d", EXIT_HUNG)
                self._end()

    def _device_work(self, elapsed: float) -> list[Suspect]:
        before = self._works
        self._works = {
            work: before[work] + elapsed if work in before else 0.0 for work in self._device.working
        }
        self.busy_seconds = max(self._works.values(), default=0.0)
        return [
            Suspect(work, _at_it("The device", age), age, self._limit(work.expected), work.thread)
            for work, age in self._works.items()
        ]

    def _event_loop(self, elapsed: float) -> Suspect:
        self._loop_age += elapsed
        age = self._loop_age  # the beat, which sets it to 0, may run at once
        self._loop.call_soon_threadsafe(self._beat)
        return Suspect("loop", _at_it("The event loop", age), age, self._limit(), self._loop_thread)

    def _broken_models(self, elapsed: float) -> list[Suspect]:
        """All broken models as one suspect, if there are any."""
        broken = list(self._broken.values())
        self._broken_age = self._broken_age + elapsed if broken else 0.0
        return [Suspect("models", text, self._broken_age, self._limit()) for text in broken[:1]]

    def _limit(self, expected: float = 0.0) -> float:
        """After how many seconds something hangs that should take so many."""
        return self._hang_seconds + SLOWER * expected

    def _judge(self, suspects: list[Suspect]) -> None:
        """Set `late` and `over`, and log the stack of what is late, once."""
        # Broken models are not late: `trouble` tells of them from the first.
        late = [suspect for suspect in suspects if suspect.late and suspect.thread is not None]
        for suspect in late:
            if suspect.cause not in self._logged:
                log.error("%s It is at:\n%s", suspect.text, stack(suspect.thread))
        self._logged = {suspect.cause for suspect in late}
        self.late = late[-1].text if late else None
        hanging = next((suspect for suspect in suspects if suspect.hangs), None)
        if hanging is not None and self.over is None:
            self.over, self._over_cause = hanging.text, hanging.cause
            log.critical("%s There is no hope left.", hanging.text)

    def _watch(self) -> None:
        last = self._clock()
        while not self._stop.wait(TICK_SECONDS):
            now = self._clock()
            # Where the machine slept or the clock jumped, nothing hung meanwhile.
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
        """Forget broken engines that are no longer loaded."""
        if self._broken:
            loaded = set(self._registry.engines().values())
            self._broken = {e: text for e, text in self._broken.items() if e in loaded}

    def _check(self, model: str, engine: Engine) -> "asyncio.Task[None]":
        """Try a model, unless it is being tried already."""
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


def _at_it(name: str, age: float) -> str:
    return f"{name} has been at it for {age:.0f} s."


def stack(thread: int | None) -> str:
    """The frames of a thread, innermost last."""
    frame = sys._current_frames().get(thread or 0)  # pyright: ignore[reportPrivateUsage] - there is no other way
    return "".join(traceback.format_stack(frame)).rstrip() if frame else "(nowhere)"
