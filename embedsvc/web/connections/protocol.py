"""HTTP/1.1 as uvicorn speaks it, and where it falls short of what clients do.

Offers of other protocols are ignored, trailers are no headers, and who has said his last is still
answered.
"""

from asyncio import Transport
from typing import Any, Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from embedsvc.errors import BadRequest, RequestError

PROBE_SECONDS = 0.05
"""After which it is found out whether who has said his last has left; then after twice as long."""


class Protocol(HttpToolsProtocol):
    """One client's; `_refuse` is left to whoever knows how."""

    transport: Transport

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's own
        super().connection_made(transport)
        self._reads: Literal["head", "body"] = "head"
        self._over = False
        self._half_closed = False
        self._answered: RequestResponseCycle | None = None

    def _refuse(self, error: RequestError) -> None:
        """Say so, and end the connection."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        """Parse, and ignore offers of other protocols, as RFC 9110 7.8 allows: the parser, which
        would leave the connection to the other protocol, begins again behind each such head."""
        rest = memoryview(data)
        try:
            while not self._over:
                try:
                    self.parser.feed_data(rest)
                    return
                except HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                    self._read_head_again()
        except HttpParserError:
            self.send_400_response("")

    def _read_head_again(self) -> None:
        """Have a new parser read the head that was just read, less what it offers."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(BadRequest("This server is no proxy: it does not take CONNECT."))
            return
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        first = b"%b %b HTTP/%b" % (method, self.url, version.encode())
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(b"\r\n".join([first, *lines, b"", b""]))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reads == "head":  # a trailer says nothing: who may call was decided without it
            super().on_header(name, value)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - asyncio's
        """Whether to go on: who has said his last may still read.

        Nothing tells him from one who has left, until he is sent something.
        """
        cycle = self._answered
        if cycle is None or cycle.response_complete or cycle.chunked_encoding:
            return False  # there is nothing to answer, or what would have no end
        if self._over or self._reads == "body" or self.scheme == "https":
            return False
        self.cycle.keep_alive = False  # the last of them, if several wait
        if not self._half_closed:
            self._half_closed = True
            self._probe(PROBE_SECONDS)
        return True

    def _probe(self, seconds: float) -> None:
        """Have whoever has left reset the connection, by words that say nothing."""

        def probe() -> None:
            cycle = self._answered
            if self.transport.is_closing() or cycle is None or cycle.response_started:
                return  # the answer tells as well
            if cycle.scope["http_version"] == "1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._probe(2 * seconds)

        self.loop.call_later(seconds, probe)
