"""Server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from embedsvc.web.state import state_of


class Events(StreamingResponse):
    """A stream of messages, each of them JSON. It ends with the messages, or when the server
    stops."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, messages: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_framed(messages, state_of(request).stopping), headers=headers)


async def _framed(messages: AsyncIterator[bytes], stopping: asyncio.Event) -> AsyncIterator[bytes]:
    stop = asyncio.ensure_future(stopping.wait())
    message: asyncio.Future[bytes] | None = None
    try:
        while True:
            message = asyncio.ensure_future(anext(messages))
            await asyncio.wait([message, stop], return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return
            try:
                yield b"data: %b\n\n" % message.result()
            except StopAsyncIteration:
                return
    finally:
        stop.cancel()
        if message is not None:
            message.cancel()
