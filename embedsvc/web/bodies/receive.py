"""The body of a request, read within bounds and turned into plain UTF-8."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from embedsvc.errors import ClientGone
from embedsvc.web.bodies.encodings import Pipe, decoders
from embedsvc.web.budget import SMALL, Budget

PLAIN = frozenset({None, b"application/json", b"application/json; charset=utf-8"})
"""Content types of a body that needs no decoding."""
MARKED = b"\xef"
"""The lowest byte that a byte order mark begins with. No JSON begins with it, or a higher one."""
CODED = frozenset({b"content-encoding", b"transfer-encoding"})
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def receive_body(
    scope: Mapping[str, Any], receive: Receive, limit: int, budget: Budget
) -> bytes:
    """A body of at most `limit` bytes, before and after it is unpacked.

    Raises `BodyTooLarge` or `TooManyBytes` before all of it is here, `UnsupportedBody` if its
    encoding is not known, `BadRequest` if it is not what its headers say, and `ClientGone`.
    """
    named: Mapping[bytes, bytes] = scope.get("named_headers") or dict(scope["headers"])
    plain = named.get(b"content-type") in PLAIN and CODED.isdisjoint(named)
    chunk, more = await _next(receive)
    if plain and not more and chunk[:1] < MARKED and len(chunk) <= min(SMALL, limit):
        return chunk  # most bodies end here
    pipe = Pipe(decoders(scope["headers"]), limit)
    body = bytearray()
    while True:
        for number, piece in enumerate(pipe.feed(chunk, last=not more)):
            body += piece
            if len(body) > SMALL and piece:
                budget.hold(len(body))
            if number > 1:
                await asyncio.sleep(0)  # a packed body gives many pieces: others have their turns
        if not more:
            return bytes(body)
        chunk, more = await _next(receive)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes of the body, and whether there are more. Raises `ClientGone`."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
