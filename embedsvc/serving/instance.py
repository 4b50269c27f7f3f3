"""An instance: one model from when it is asked for until its memory is given back.

Its states are downloading -> loading -> ready -> unloading -> unloaded, and failed after either of
the first two. A model that is asked for again while its instance unloads gets another instance.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import contextmanager
from typing import Literal, Protocol, TypedDict
from uuid import uuid4

import msgspec

from embedsvc.catalog.cards import Card, Dtype, Prompts, Task
from embedsvc.checkpoints.progress import Progress
from embedsvc.errors import CheckpointError, SetupError, Stopped
from embedsvc.inference.plan import Plan
from embedsvc.serving.engine import Engine
from embedsvc.serving.loader import Loader
from embedsvc.serving.outline import Outline, outline_of
from embedsvc.wording.plain import shown

State = Literal["unloaded", "downloading", "loading", "ready", "unloading", "failed"]
LONGEST_REASON = 2000
"""Characters of the reason why a model did not load."""
log = logging.getLogger(__name__)


class FindRoom(Protocol):
    """Returns once there is memory for an instance. `Room.find` is one.

    Raises `DoesNotFit`, or `Stopped` if the instance was unloaded meanwhile.
    """

    def __call__(self, instance: "Instance", plan: Plan, /) -> Awaitable[None]: ...


class StateChanged(Protocol):
    """Is called after every change of an instance's state. The registry has one."""

    def __call__(self, instance: "Instance", /) -> None: ...


class Wishes(TypedDict, total=False):
    """How an instance is to be. What is left out, or None, is as the card or the server says."""

    keep_alive: float | None
    pin: bool | None
    identity: str | None
    """The id of the instance, if it has to be made."""


class Description(msgspec.Struct, frozen=True):
    """What is known of a model once it has been loaded, as long as its card and files stay."""

    dimensions: int
    max_tokens: int
    architecture: str
    pooling: str
    pooling_source: str
    tasks: tuple[Task, ...]
    """All that it gives, what it is for first."""
    dtype: Dtype
    prompts: Prompts
    fingerprint: str


class Instance:
    """Lives on the event loop, and begins to load when it is made."""

    def __init__(
        self,
        card: Card,
        loader: Loader,
        *,
        keep_alive: float,
        pinned: bool,
        find_room: FindRoom,
        state_changed: StateChanged,
        identity: str | None = None,
    ) -> None:
        self.id = identity or str(uuid4())
        self.card = card
        self.keep_alive = keep_alive
        """Seconds without users after which it is unloaded. Negative: never."""
        self.pinned = pinned
        """Whether it is never unloaded but on demand."""
        self.tasks: tuple[Task, ...] = (card.task or "embed",)
        """What the model is for, by its card, or by its files once they are here."""
        self.state: State = "loading"
        self.error: SetupError | None = None
        self.progress = (0, 0)
        """Bytes that are done, and bytes in all, of the download or of loading."""
        self.size = 0
        """Bytes of its weights in memory."""
        self.outline: Outline | None = None
        """What its files say of it, once they are here."""
        self.last_used = asyncio.get_running_loop().time()
        self.users = 0
        self.abandoned = False
        """Whether it is unloaded without waiting for its users."""
        self._loader = loader
        self._find_room = find_room
        self._state_changed = state_changed
        self._engine: Engine | None = None
        self._unused = asyncio.Event()
        """Set while nobody uses it."""
        self._unused.set()
        self._changed = asyncio.Event()
        """Set at the next change of state or progress, and replaced by a new event then."""
        self._stop = threading.Event()
        """Ends a download."""
        self._timer: asyncio.TimerHandle | None = None
        """Unloads it when `keep_alive` is over."""
        self._closing: asyncio.Task[None] | None = None
        self._loading = asyncio.create_task(self._load())

    @property
    def closing(self) -> bool:
        """Whether it takes no new users."""
        return self._closing is not None

    @property
    def over(self) -> bool:
        """Whether it has come to its last state."""
        return self.state in ("unloaded", "failed")

    @property
    def engine(self) -> Engine | None:
        """Its engine while it is ready or unloading, else None."""
        return self._engine

    @contextmanager
    def user(self) -> Generator[None]:
        """A context in which somebody waits for it or uses it, so that it is not unloaded."""
        self.users += 1
        self._unused.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self.users -= 1
            self.last_used = asyncio.get_running_loop().time()
            if not self.users:
                self._unused.set()
                self._unload_when_idle()

    async def loaded(self) -> Engine:
        """Its engine, once it is loaded. Raises the `SetupError` that kept it from loading."""
        if self._engine is None:
            await asyncio.shield(self._loading)
        if self._engine is None:
            stopped = Stopped(f"model `{self.card.id}` was unloaded before it was ready")
            # Without a traceback, or one error would collect the frames of all who raise it.
            raise (self.error or stopped).with_traceback(None)
        return self._engine

    def set_keep_alive(self, seconds: float) -> None:
        self.keep_alive = seconds
        if not self.users:
            self._unload_when_idle()

    def set_pinned(self, pinned: bool) -> None:
        """Keep it whatever its `keep_alive` says, or no longer, in which case that starts again."""
        if pinned != self.pinned:
            self.pinned = pinned
            if not self.users:
                self._unload_when_idle()

    def close(self) -> "asyncio.Task[None]":
        """Take no new users, and unload once the present ones are done. A download ends at once."""
        if self._closing is None:
            if self._timer is not None:
                self._timer.cancel()
            self._stop.set()
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def abandon(self) -> None:
        """Unload without waiting for its users, because the server stops."""
        self.abandoned = True
        closing = self.close()
        if self._engine is not None:
            await self._engine.refuse()
        self._unused.set()
        await closing

    async def changes(self) -> AsyncIterator["Instance"]:
        """The instance now, and after each change of its state or progress, until it is over."""
        while True:
            # Both are read before the yield, after which they may be others.
            changed, over = self._changed, self.over
            yield self
            if over:
                return
            await changed.wait()

    async def _load(self) -> None:
        try:
            plan = await self._loader.fetch(self.card, self._progress_in("downloading"), self._stop)
            self.tasks = plan.checkpoint.tasks
            self.outline, self.progress = outline_of(plan), (0, 0)
            self._enter("loading")
            await self._find_room(self, plan)
            self._engine = await self._loader.load(plan, self._progress_in("loading"))
            self.progress = (self.progress[1], self.progress[1])  # though some tensors are not read
            self._enter("ready")
            if not self.users and self.keep_alive:  # with 0 it is unloaded after its first use
                self._unload_when_idle()
        except SetupError as error:
            self._fail(error)
        except Exception as error:
            log.exception("model %s did not load", self.card.id)
            self._fail(CheckpointError(f"model `{self.card.id}` did not load: {error}"))

    def _fail(self, error: SetupError) -> None:
        # The frames it came through would keep weights in memory that were read.
        error.__traceback__ = error.__context__ = None
        # It may quote files, and it is sent to whoever asks for the state.
        if len(reason := str(error)) > LONGEST_REASON:
            error = type(error)(shown(reason, LONGEST_REASON))
        self.error = error
        self._enter("unloaded" if isinstance(error, Stopped) else "failed")

    async def _close(self) -> None:
        await asyncio.wait([self._loading])
        if self._engine is None:
            return
        self._enter("unloading")
        await self._unused.wait()
        engine, self._engine = self._engine, None
        try:
            await engine.close()
        except Exception:
            # Else it would hold its share of the memory for ever, and keep all others waiting.
            log.exception("model %s did not unload as it should", self.card.id)
        self._enter("unloaded")

    def _unload_when_idle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.keep_alive >= 0 and not self.pinned and self.state == "ready":
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.keep_alive, self.close)

    def _enter(self, state: State) -> None:
        self.state = state
        self._state_changed(self)
        self._notify()

    def _notify(self) -> None:
        """Wake those who iterate over `changes`."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _progress_in(self, state: State) -> Progress:
        """Takes the progress in a state from any thread. The first report enters the state."""
        loop = asyncio.get_running_loop()

        def set_progress(done: int, total: int) -> None:
            if self.state not in ("downloading", "loading"):
                return
            self.progress = (done, total)
            if self.state != state:
                self._enter(state)
            else:
                self._notify()

        def report(done: int, total: int) -> None:
            loop.call_soon_threadsafe(set_progress, done, total)

        return report


def describe(engine: Engine) -> Description:
    """The description of a loaded model."""
    checkpoint = engine.checkpoint
    return Description(
        dimensions=engine.dimensions,
        max_tokens=checkpoint.max_tokens,
        architecture=checkpoint.model_type,
        pooling="+".join(checkpoint.pooling),
        pooling_source=checkpoint.pooling_source,
        tasks=checkpoint.tasks,
        dtype=engine.dtype,
        prompts=checkpoint.prompts,
        fingerprint=engine.fingerprint,
    )
