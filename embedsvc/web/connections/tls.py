"""TLS: its certificate, and the clients that are shaking hands.

Clients are counted from the moment they connect, and their handshakes are bounded in time. A client
that sends nothing would otherwise hold a file descriptor without being a connection yet.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from embedsvc.errors import CardsError
from embedsvc.settings import Settings
from embedsvc.web.connections.connection import LAST_SECONDS, Connection, Limits

RETRY_SECONDS = 1.0
"""How long to wait, where the machine had no room for another client, before the next is taken."""
log = logging.getLogger(__name__)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The certificate and the rules of TLS; None if it is not spoken. Raises `CardsError`."""
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise CardsError("tls_key: there is no tls_cert for it")
        return None
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.options |= ssl.OP_NO_RENEGOTIATION  # a handshake costs the server most
    try:
        # Without a password, OpenSSL would ask for one and wait for somebody to type it.
        found.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:  # ssl's own errors too
        files = ", ".join(str(file) for file in (settings.tls_cert, settings.tls_key) if file)
        raise CardsError(f"tls_cert, tls_key: {files}: {error.strerror or error}") from None
    return found


class Handshakes:
    """Takes the clients of one socket, and makes a connection for each that has shaken hands.

    It stands in the place of one of asyncio's servers, with `close` and `wait_closed` like theirs.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        make: Callable[[], Connection],
        limits: Limits,
        connected: Callable[[], int],
    ) -> None:
        """`connected` says how many clients there are, with those that are shaking hands."""
        self._tls = tls
        self._make = make
        self._limits = limits
        self._connected = connected
        self._shaking: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._accepting = asyncio.ensure_future(self._accept(listener))

    def __len__(self) -> int:
        """How many clients are shaking hands."""
        return len(self._shaking)

    def close(self) -> None:
        """Take no more clients, and drop those that are shaking hands."""
        for task in (self._accepting, *self._shaking):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until `close` has done its work."""
        await asyncio.wait([self._accepting, *self._shaking])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left again
            except OSError as error:
                log.error("no client can be taken: %s", error.strerror)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            others = self._connected()
            most = self._limits.connections
            if others >= 2 * most:
                client.close()
                continue
            # A client beyond the limit shakes hands only to be told so.
            seconds = self._limits.seconds if others < most else LAST_SECONDS
            task = asyncio.ensure_future(self._shake(client, seconds))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _shake(self, client: socket.socket, seconds: float) -> None:
        with suppress(OSError):  # ssl's own errors too, and the time being over
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=self._limits.seconds,
            )
