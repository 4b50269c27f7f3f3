"""TLS: what it is spoken with, and clients who shake hands.

They are counted from when they connect, and bounded in time: a client who says nothing would
otherwise take a descriptor of the process without being a connection yet.
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
"""After which clients are taken again, where the machine had no room for another."""
log = logging.getLogger(__name__)


def context(settings: Settings) -> ssl.SSLContext | None:
    """What TLS is spoken with, if it is. Raises `CardsError`."""
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise CardsError("tls_key: there is no tls_cert for it")
        return None
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.options |= ssl.OP_NO_RENEGOTIATION  # which costs the server most
    try:
        # Asked for a passphrase, it would wait for somebody to type it.
        found.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:  # ssl's own errors too
        files = ", ".join(str(file) for file in (settings.tls_cert, settings.tls_key) if file)
        raise CardsError(f"tls_cert, tls_key: {files}: {error.strerror or error}") from None
    return found


class Handshakes:
    """Takes the clients of one socket, and makes a connection of each who has shaken hands.

    `close` and `wait_closed` are as those of asyncio's servers, in whose place it stands.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        make: Callable[[], Connection],
        limits: Limits,
        connected: Callable[[], int],
    ) -> None:
        """`connected` says how many clients there are, with those who shake hands."""
        self._tls = tls
        self._make = make
        self._limits = limits
        self._connected = connected
        self._shaking: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._accepting = asyncio.ensure_future(self._accept(listener))

    def __len__(self) -> int:
        """Clients who shake hands."""
        return len(self._shaking)

    def close(self) -> None:
        """Take no more clients, and leave those who shake hands."""
        for task in (self._accepting, *self._shaking):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until that is done."""
        await asyncio.wait([self._accepting, *self._shaking])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # he left again
            except OSError as error:
                log.error("no client can be taken: %s", error.strerror)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            others = self._connected()
            most = self._limits.connections
            if others >= 2 * most:
                client.close()
                continue
            # Those beyond the limit shake hands only to be told so.
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
