"""One client's connection: uvicorn's, within limits that uvicorn does not have.

Heads are bounded in bytes, and heads, bodies and answers in time, so that a client that sends byte
by byte, or does not read, does not keep its place for ever. Errors before there is a request (it is
not HTTP, its head has no end) are answered here, in the shape of the path's dialect, if the path is
known yet.
"""

from asyncio import TimerHandle, Transport
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from embedsvc.errors import (
    BadRequest,
    HeadTooLarge,
    RequestError,
    TimedOut,
    TooManyConnections,
)
from embedsvc.web.connections.protocol import HttpProtocol
from embedsvc.web.refusals import write_error

LEAST_RATE = 32 * 1024
"""Bytes per second at which a body has to arrive."""
CHUNK_BYTES = 16
"""Bytes that a chunk of a body needs beside its data. More than that are extensions and
trailers."""
LAST_SECONDS = 1.0
"""How long a refused connection is kept, so that the client can read why."""
MOST_UNREAD = 2
"""How much of a refused body is read after its answer, in times the longest body allowed."""


Refused = Callable[[RequestError], None]
"""Called with a refusal that the application does not see, to count and log it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may do, and who is told of refusals."""

    connections: int
    head_bytes: int
    body_bytes: int
    seconds: float
    """How long a client may take to send a head, to go on with a body, or to read an answer."""
    refused: Refused


class Connection(HttpProtocol):
    """uvicorn makes one for each client, from `Limited` in web/server.py.

    `HttpProtocol` in protocol.py parses what comes; then uvicorn calls the application.
    """

    limits: Limits
    url = b""
    """The target of the request that is being read or was read last, as far as it is known."""

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's own
        super().connection_made(transport)
        self._got = 0  # bytes so far of the head or the body that is being read
        self._data = 0  # those of them that are data of a body
        self._chunks = 0
        self._read_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._until = 0.0  # the loop's time at which a body is too late
        most = self.limits.connections
        self._too_many = len(self.connections) > most
        if len(self.connections) > 2 * most:
            transport.abort()
        elif self._too_many:
            self.loop.call_later(LAST_SECONDS, transport.abort)
        else:
            self._read_timer = self.loop.call_later(self.limits.seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().connection_lost(exc)
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._too_many:
            self.url = (*data.split(b" ", 2), b"", b"")[1]
            self._refuse(TooManyConnections(self.limits.connections))
            return
        self._got += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._over or (self._reads == "head" and not self._got):
            return  # most reads end here: they bring a whole request
        if self._reads == "head" and self._got > self.limits.head_bytes:
            self._refuse(HeadTooLarge(self.limits.head_bytes))
        elif self._reads == "body" and self._got > MOST_UNREAD * self.limits.body_bytes:
            self.transport.abort()
        elif self._reads == "body" and self._beside() > self.limits.head_bytes:
            self._refuse(BadRequest("Chunks of your request carry too much beside their data."))
        elif self._read_timer is None:
            self._until = self.loop.time() + self.limits.seconds
            self._read_timer = self.loop.call_later(self.limits.seconds, self._late)
        elif self._reads == "body":
            latest = self.loop.time() + self.limits.seconds
            self._until = min(self._until + len(data) / LEAST_RATE, latest)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # `HttpProtocol` reads this head again, without its offer of another protocol
        if self._got > self.limits.head_bytes:  # some of it may be a body behind the head
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self.limits.head_bytes:
                self._refuse(HeadTooLarge(self.limits.head_bytes))
                return
        super().on_headers_complete()
        self.scope["transport"] = self.transport  # pyright: ignore[reportGeneralTypeIssues] - ours
        self._reads, self._got, self._data, self._chunks = "body", 0, 0, 0
        self._stop_reading_timer()

    def on_body(self, body: bytes) -> None:
        if not self._over:
            self._data += len(body)
            super().on_body(body)

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_message_complete(self) -> None:
        if not self._over and not self.parser.should_upgrade():
            super().on_message_complete()
            self._reads, self._got = "head", 0
            self._stop_reading_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP/1.1."""
        if self._over:
            return
        reason = "it is not valid HTTP"
        if self.parser.get_method() == b"PRI":
            reason = "it is HTTP/2, and this server speaks HTTP/1.1"
        self._refuse(BadRequest(f"We could not parse your request: {reason}."))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits until the client has read what was written.
        self.loop.call_later(self.limits.seconds, self.transport.abort)

    def _beside(self) -> int:
        """Bytes of a body that are neither data nor the least that chunks need beside it."""
        return self._got - self._data - CHUNK_BYTES * self._chunks

    def _late(self) -> None:
        """Refuse a head or a body that has taken too long, or wait on if we are to blame."""
        self._read_timer = None
        if self._reads == "head":
            if self._got:
                self._refuse(TimedOut("head", self.limits.seconds))
            else:
                self.transport.close()
            return
        now = self.loop.time()
        if self.flow.read_paused:  # we do not read: another request comes first
            self._until = now + self.limits.seconds
        if self._until > now:
            self._read_timer = self.loop.call_at(self._until, self._late)
        else:
            self._refuse(TimedOut("body", self.limits.seconds))

    def _watch_reader(self, unread: int) -> None:
        """End the connection if the client reads nothing of what is unread for too long."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unread:
                self.transport.abort()
            else:
                self._watch_reader(left)

        self._write_timer = self.loop.call_later(self.limits.seconds, look)

    def _refuse(self, error: RequestError) -> None:
        """Answer with the error, unless the request has another answer, and end the connection."""
        self._over = True
        self._stop_reading_timer()
        if self._reads == "body" and self.cycle.response_complete:
            # Answered without its body, which does not come as it should. A second answer would be
            # read as the next request's.
            self._hang_up()
            return
        self.limits.refused(error)
        cycle = self._answered
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()
            return
        self._leave()
        body = write_error(error, self.url.partition(b"?")[0].decode("latin-1"))
        head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        head += "".join(f"{name.lower()}: {value}\r\n" for name, value in error.headers.items())
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection once the client has had time to read what was written."""
        if self.transport.can_write_eof():
            # Were it closed while bytes are unread, the kernel would drop the answer.
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def _leave(self) -> None:
        """Tell the request that is being answered that its client is gone.

        Where requests are pipelined, uvicorn tells only the last of them, which has not begun.
        """
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def _stop_reading_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
