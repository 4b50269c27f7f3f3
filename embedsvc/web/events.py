"""Server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from embedsvc.web.state import state_of

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients do not take for a message."""
KEEP_ALIVE_SECONDS = 10.0
"""After so long without a message, a comment is sent: proxies end connections that are silent."""


class Events(StreamingResponse):
    """A stream of messages, each of them JSON. It ends with the messages, or when the server
    stops."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, messages: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_framed(messages, state_of(request).stopping), headers=headers)


async def _framed(messages: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncIterator[bytes]:
    yield KEEP_ALIVE
    stop = asyncio.ensure_future(stopping.wait())
    message = asyncio.ensure_future(anext(messages))
    try:
        while True:
            await asyncio.wait(
                [message, stop], timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if stop.done():
                return
            if not message.done():
                yield KEEP_ALIVE
                continue
            try:
                yield b"data: %b\n\n" % message.result()
            except StopAsyncIteration:
                return
            message = asyncio.ensure_future(anext(messages))
    finally:
        stop.cancel()
        message.cancel()
