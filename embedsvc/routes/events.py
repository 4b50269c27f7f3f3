"""Server-sent events."""

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse


class Events(StreamingResponse):
    """A stream of messages, each JSON as bytes; it ends when they do."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncIterator[bytes]) -> None:
        super().__init__(_framed(messages), headers={"cache-control": "no-cache"})


async def _framed(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for message in messages:
        yield b"data: %b\n\n" % message
