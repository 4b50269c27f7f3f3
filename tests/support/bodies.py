"""Bodies of requests, and what is read of them."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from embedsvc.web.bodies.receive import receive_body
from embedsvc.web.budget import Budget

LIMIT = 2_000_000
TEXT = json.dumps({"model": "org/tiny", "input": ["hello", "Füße, 東京"]}, ensure_ascii=False)


def read(
    body: bytes | Iterable[bytes],
    encoding: str = "",
    content_type: str = "application/json",
    limit: int = LIMIT,
) -> bytes:
    """What is read of a body that comes at once, or in pieces."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}
        for i, piece in enumerate(pieces)
    ]
    headers = [(b"content-type", content_type.encode())]
    if encoding:
        headers.append((b"content-encoding", encoding.encode()))

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return asyncio.run(receive_body({"headers": headers}, receive, limit, Budget(10**9)))


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]
