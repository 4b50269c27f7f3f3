"""HTTP/1.1 as uvicorn speaks it, mended where that is not enough for what clients do.

Offers to change to another protocol are ignored, trailers do not count as headers, and a client
that has closed its side of the connection is still answered.
"""

from asyncio import Transport
from typing import Any, Literal

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from embedsvc.errors import BadRequest, RequestError

PROBE_SECONDS = 0.05
"""When to look whether a client that has closed its side is still there. The time doubles each
time."""


class HttpProtocol(HttpToolsProtocol):
    """One client's connection. A subclass says how to refuse a request, in `_refuse`."""

    transport: Transport

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's own
        super().connection_made(transport)
        self._reads: Literal["head", "body"] = "head"
        self._over = False
        self._half_closed = False
        self._answered: RequestResponseCycle | None = None

    def _refuse(self, error: RequestError) -> None:
        """Answer with the error, and end the connection."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        """Parse the bytes, and ignore offers of other protocols, as RFC 9110 section 7.8 allows.

        At such an offer the parser stops, to leave the connection to the other protocol. A new one
        goes on behind it.
        """
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
        """Have a new parser read the head that was just read, without its offer."""
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
        if self._reads == "head":  # not a trailer: who may call was decided without it
            super().on_header(name, value)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - asyncio's
        """Whether to keep the connection: a client that has closed its side may still read.

        It looks like a client that has left, until something is sent to it.
        """
        cycle = self._answered
        if cycle is None or cycle.response_complete or cycle.chunked_encoding:
            return False  # nothing is left to answer, or the answer is a stream without an end
        if self._over or self._reads == "body" or self.scheme == "https":
            return False
        self.cycle.keep_alive = False  # this is the last request, if several wait
        if not self._half_closed:
            self._half_closed = True
            self._probe(PROBE_SECONDS)
        return True

    def _probe(self, seconds: float) -> None:
        """Send an interim answer without meaning. A client that has left resets the connection
        then."""

        def probe() -> None:
            cycle = self._answered
            if self.transport.is_closing() or cycle is None or cycle.response_started:
                return  # the answer itself finds out as well
            if cycle.scope["http_version"] == "1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._probe(2 * seconds)

        self.loop.call_later(seconds, probe)
