"""An instance: one model from when it is asked for until its memory is given back.

downloading -> loading -> ready -> unloading -> unloaded, and failed from the first two. A model
that is asked for again while its instance unloads gets another one.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Literal
from uuid import uuid4

import msgspec

from embedsvc.catalog.cards import Card, Prompts
from embedsvc.errors import CheckpointError, SetupError, Stopped
from embedsvc.inference.plan import Plan
from embedsvc.serving.engine import Engine
from embedsvc.serving.loader import Loader
from embedsvc.wording.plain import shown

State = Literal["unloaded", "downloading", "loading", "ready", "unloading", "failed"]
LONGEST_REASON = 2000
"""Characters of why a model did not load."""
log = logging.getLogger(__name__)


class Description(msgspec.Struct, frozen=True):
    """What is known of a model once it has been loaded; true while its card and files stay."""

    dimensions: int
    max_tokens: int
    architecture: str
    pooling: str
    prompts: Prompts
    fingerprint: str


class Instance:
    """Lives on the event loop. It begins to load when it is made."""

    def __init__(
        self,
        card: Card,
        loader: Loader,
        *,
        keep_alive: float,
        pinned: bool,
        find_room: Callable[["Instance", Plan], Awaitable[None]],
        changed: Callable[["Instance"], None],
    ) -> None:
        """`find_room` returns when there is memory for it; `changed` is told of every state."""
        self.id = str(uuid4())
        self.card = card
        self.keep_alive = keep_alive
        """Seconds without users after which it is unloaded; negative: never."""
        self.pinned = pinned
        self.state: State = "loading"
        self.error: SetupError | None = None
        self.progress = (0, 0)
        """Bytes done and to be done, of the download or of loading."""
        self.size = 0
        """Bytes of its weights in memory."""
        self.last_used = asyncio.get_running_loop().time()
        self.users = 0
        self._loader = loader
        self._find_room = find_room
        self._tell_keeper = changed
        self._engine: Engine | None = None
        self._unused = asyncio.Event()
        self._unused.set()
        self._changed = asyncio.Event()
        self._stop = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loading = asyncio.create_task(self._load())

    @property
    def closing(self) -> bool:
        """Whether it takes no new users."""
        return self._closing is not None

    @property
    def over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in ("unloaded", "failed")

    @property
    def engine(self) -> Engine | None:
        """What computes, while it is ready or unloading."""
        return self._engine

    @contextmanager
    def user(self) -> Generator[None]:
        """While somebody waits for it or uses it, it stays."""
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
        """Its engine, when it is there. Raises the `SetupError` that kept it from loading."""
        if self._engine is None:
            await asyncio.shield(self._loading)
        if self._engine is None:
            gone = Stopped(f"model `{self.card.id}` was unloaded before it was ready")
            # However many raise it, it does not keep the frames of those who did so before.
            raise (self.error or gone).with_traceback(None)
        return self._engine

    def set_keep_alive(self, seconds: float) -> None:
        self.keep_alive = seconds
        if not self.users:
            self._unload_when_idle()

    def set_pinned(self, pinned: bool) -> None:
        """Have it stay whatever its `keep_alive` says, or no longer: that begins anew then."""
        if pinned != self.pinned:
            self.pinned = pinned
            if not self.users:
                self._unload_when_idle()

    def close(self) -> "asyncio.Task[None]":
        """Take no new users; unload once those there are done. A download ends at once."""
        if self._closing is None:
            if self._timer is not None:
                self._timer.cancel()
            self._stop.set()
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def abandon(self) -> None:
        """Unload, whoever is waiting: the server stops."""
        closing = self.close()
        if self._engine is not None:
            await self._engine.refuse()
        self._unused.set()
        await closing

    async def changes(self) -> AsyncIterator["Instance"]:
        """The instance now, and whenever its state or progress is another, until it is over."""
        while True:
            changed, over = self._changed, self.over  # now: it may be another after the yield
            yield self
            if over:
                return
            await changed.wait()

    async def _load(self) -> None:
        try:
            plan = await self._loader.fetch(self.card, self._tell("downloading"), self._stop)
            self.progress = (0, 0)
            self._enter("loading")
            await self._find_room(self, plan)
            self._engine = await self._loader.load(plan, self._tell("loading"))
            self.progress = (self.progress[1], self.progress[1])  # some tensors are not read
            self._enter("ready")
            if not self.users and self.keep_alive:  # 0: once it has been used
                self._unload_when_idle()
        except SetupError as error:
            self._fail(error)
        except Exception as error:
            log.exception("model %s did not load", self.card.id)
            self._fail(CheckpointError(f"model `{self.card.id}` did not load: {error}"))

    def _fail(self, error: SetupError) -> None:
        # Without the frames it came through, which would keep weights that were read.
        error.__traceback__ = error.__context__ = None
        if len(said := str(error)) > LONGEST_REASON:  # files have a say in it, and it is told often
            error = type(error)(shown(said, LONGEST_REASON))
        self.error = error
        self._enter("unloaded" if isinstance(error, Stopped) else "failed")

    async def _close(self) -> None:
        await asyncio.wait([self._loading])
        if self._engine is None:
            return
        self._enter("unloading")
        await self._unused.wait()
        engine, self._engine = self._engine, None
        await engine.close()
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
        self._tell_keeper(self)
        self._show()

    def _show(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, state: State) -> Callable[[int, int], None]:
        """What threads may tell of the progress in a state."""
        loop = asyncio.get_running_loop()

        def show(done: int, total: int) -> None:
            if self.state not in ("downloading", "loading"):
                return
            self.progress = (done, total)
            if self.state != state:
                self._enter(state)
            else:
                self._show()

        def told(done: int, total: int) -> None:
            loop.call_soon_threadsafe(show, done, total)

        return told


def describe(engine: Engine) -> Description:
    """The description of a loaded model."""
    checkpoint = engine.checkpoint
    return Description(
        dimensions=engine.dimensions,
        max_tokens=checkpoint.max_tokens,
        architecture=checkpoint.model_type,
        pooling="+".join(checkpoint.pooling),
        prompts=checkpoint.prompts,
        fingerprint=engine.fingerprint,
    )
