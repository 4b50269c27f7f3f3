"""The body of a request, read within bounds."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from embedsvc.errors import BodyTooLarge, ClientGone
from embedsvc.http.budget import SMALL, Budget

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def read(receive: Receive, limit: int, budget: Budget) -> bytes:
    """A body of at most `limit` bytes.

    Raises `BodyTooLarge` or `TooManyBytes` before it is all here; `ClientGone`.
    """
    chunk, more = await _next(receive)
    if not more and len(chunk) <= min(SMALL, limit):
        return chunk  # as most are
    body = bytearray()
    while True:
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(limit)
        if len(body) > SMALL:
            budget.hold(len(body))
        if not more:
            return bytes(body)
        chunk, more = await _next(receive)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """What came since, and whether there is more to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
