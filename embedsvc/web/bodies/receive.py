"""The body of a request, read within bounds, as plain UTF-8 whatever it came in."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from embedsvc.errors import ClientGone
from embedsvc.web.bodies.encodings import Pipe, decoders
from embedsvc.web.budget import SMALL, Budget

PLAIN = frozenset({None, b"application/json", b"application/json; charset=utf-8"})
"""Types of a body that is read as it comes."""
MARKED = b"\xef"
"""The first byte that a byte order mark may begin with, and no JSON does."""
CODED = frozenset({b"content-encoding", b"transfer-encoding"})
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def receive_body(
    scope: Mapping[str, Any], receive: Receive, limit: int, budget: Budget
) -> bytes:
    """A body of at most `limit` bytes, also once it is unpacked.

    Raises `BodyTooLarge` or `TooManyBytes` before it is all here, `UnsupportedBody` if it came in
    what is not read here, `BadRequest` if it is not what its headers say; `ClientGone`.
    """
    named: Mapping[bytes, bytes] = scope.get("named_headers") or dict(scope["headers"])
    plain = named.get(b"content-type") in PLAIN and CODED.isdisjoint(named)
    chunk, more = await _next(receive)
    if plain and not more and chunk[:1] < MARKED and len(chunk) <= min(SMALL, limit):
        return chunk  # as most are
    pipe = Pipe(decoders(scope["headers"]), limit)
    body = bytearray()
    while True:
        for number, piece in enumerate(pipe.feed(chunk, last=not more)):
            body += piece
            if len(body) > SMALL and piece:
                budget.hold(len(body))
            if number > 1:
                await asyncio.sleep(0)  # what was packed gives many; others have their turns
        if not more:
            return bytes(body)
        chunk, more = await _next(receive)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """What came since, and whether there is more to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
