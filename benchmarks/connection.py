"""A client's connection to a server, for benchmarks that look at what becomes of each request."""

import asyncio


class Unanswered(Exception):
    """The connection was closed before the answer was complete."""


class Connection:
    """A connection that is kept, and opened again after it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises `Unanswered`."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise Unanswered(type(error).__name__) from None

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        """Close the connection. The next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def embeddings_request(body: bytes, headers: str = "") -> bytes:
    """The bytes of a request for embeddings, with the length of its body unless it is chunked."""
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n{headers}"
    length = "" if "Transfer-Encoding" in headers else f"Content-Length: {len(body)}\r\n"
    return f"{head}{length}\r\n".encode() + body
