"""What every request that has a model compute goes through, whatever it asks for.

The model is found and loaded, the client's wishes for the cache are read, and what was computed is
told to the log and in headers. A client that hangs up has its work cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypedDict, TypeVar

from starlette.requests import Request

from embedsvc.catalog.cards import Card, Task
from embedsvc.errors import ClientGone
from embedsvc.serving.engine import Engine
from embedsvc.telemetry.record import current
from embedsvc.web.state import registry_of

PATIENCE = 0.05
"""Seconds before a request looks whether its client has hung up. Most answers are there sooner."""
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")


class Caching(TypedDict):
    """What the cache may do for a request."""

    read_cache: bool
    write_cache: bool


class Computed(Protocol):
    """What was computed for a request, as far as all requests are alike."""

    @property
    def tokens(self) -> int:
        """The tokens that the model was given."""
        ...

    @property
    def truncated(self) -> int:
        """How many of them were cut."""
        ...


C = TypeVar("C", bound=Computed)
Work = Callable[[Engine, Card, str | None, Caching], Awaitable[C]]
"""Computes with a loaded model: its engine, its card, and the prompt that its name names."""


async def compute(
    request: Request, model: str, task: Task, inputs: int, work: Work[C]
) -> tuple[C, Headers]:
    """What a model computes for a request of so many inputs, and the headers of its answer.

    Raises `RequestError`; `ClientGone` if the client hangs up first, and computes no further.
    """
    return await _while_connected(request, _compute(request, model, task, inputs, work))


async def _compute(
    request: Request, model: str, task: Task, inputs: int, work: Work[C]
) -> tuple[C, Headers]:
    registry = registry_of(request)
    card, prompt = registry.card(model)
    record = current.get()
    if record is not None:
        record.model, record.task = card.id, task
    control = request.headers.get("cache-control", "").lower()
    caching = Caching(read_cache="no-cache" not in control, write_cache="no-store" not in control)
    async with registry.use(model) as engine:
        computed = await work(engine, card, prompt, caching)
    if record is not None:
        record.texts, record.tokens = inputs, computed.tokens
    headers = [
        (b"openai-model", card.id.encode("ascii", "replace")),
        (b"x-embedsvc-fingerprint", engine.fingerprint.encode()),
    ]
    if computed.truncated:
        headers.append((b"x-embedsvc-truncated", b"%d" % computed.truncated))
    return computed, headers


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled if the client hangs up first.

    Raises `ClientGone` then.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine is run by one
    gone: asyncio.Future[Any] | None = None
    over = False

    def hung_up(_: object) -> None:
        if not over:  # it may be called after the work has ended, while the answer is written
            task.cancel()

    def watch() -> None:
        nonlocal gone
        # The body has been read, so what the server tells next is that the client hung up.
        gone = asyncio.ensure_future(request.receive())
        gone.add_done_callback(hung_up)

    soon = asyncio.get_running_loop().call_later(PATIENCE, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if gone is None or not gone.done():
            raise  # somebody else cancelled the task
        task.uncancel()
        raise ClientGone from None
    finally:
        over = True
        soon.cancel()
        if gone is not None:
            gone.cancel()
