"""Running the server: the socket, uvicorn within our limits, signals, and the end."""

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from functools import partial
from threading import Timer
from types import FrameType
from typing import Any

import uvicorn

from embedsvc import __version__
from embedsvc.daemon.sd_notify import notify
from embedsvc.errors import CardsError, RequestError
from embedsvc.probe import EVERYWHERE
from embedsvc.serving.metrics import Metrics, counter, gauge
from embedsvc.serving.registry import Registry
from embedsvc.serving.reload import reload
from embedsvc.serving.watchdog import Watch, end_process
from embedsvc.settings import Settings
from embedsvc.telemetry.logs import Log, open_log
from embedsvc.telemetry.record import Record
from embedsvc.web.app import create_app
from embedsvc.web.connections.connection import Connection, Limits
from embedsvc.web.connections.listening import listening
from embedsvc.web.connections.tls import Handshakes, context

KEEP_ALIVE_SECONDS = 75
"""Clients keep connections for minutes, and race shorter limits."""
CLOSE_SECONDS = 10.0
"""For what runs on the device when the last answer is written."""
OPEN_FILES = 10_240
"""As many as macOS allows; the usual soft limits, 256 there, are few connections."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is in flight. Raises `SetupError`."""
    human = settings.log_format == "human"
    human = human or (settings.log_format == "auto" and sys.stderr.isatty())
    with closing(open_log(sys.stderr, json=not human, level=settings.log_level)) as told:
        await _serve(settings, told)


async def _serve(settings: Settings, told: Log) -> None:
    _allow_open_files()
    tls = context(settings)
    with listening(settings) as listeners, _telling(settings, told) as tell:
        app = create_app(settings, tell)
        metrics: Metrics = app.state.metrics
        async with app.router.lifespan_context(app):
            config = _config(app, settings, metrics, told)
            server = Server(config, app.state.watch, settings, tls)
            metrics.read_also(
                lambda: [
                    counter("log_lines_lost", "Lines not written.", [], [([], told.lost)]),
                    gauge("connections", "Open ones.", [], [([], server.connections)]),
                ]
            )
            for number in SIGNALS:  # until the process ends: uvicorn has them only while it serves
                signal.signal(number, server.handle_exit)
            _reload_on_hangup(app.state.registry, server)
            _announce(app.state.registry, listeners[0], settings)
            notify("READY=1")
            await server.serve(sockets=listeners)
            end = Timer(CLOSE_SECONDS, end_process)
            end.daemon = True
            end.start()
        end.cancel()


@contextmanager
def _telling(settings: Settings, told: Log) -> Generator[Callable[[Record], None]]:
    """What is to be told of every request that is over. Raises `CardsError`."""
    if settings.otlp_endpoint is None:
        yield told.tell
        return
    from embedsvc.telemetry.traces import (
        Traces,  # few send traces, and its libraries are slow to import
    )

    with closing(Traces(settings.otlp_endpoint, __version__)) as traces:

        def tell(record: Record) -> None:
            told.tell(record)
            traces.tell(record)

        yield tell


class Server(uvicorn.Server):
    """uvicorn's, which a second signal ends at once, and which may be asked to linger."""

    def __init__(
        self,
        config: uvicorn.Config,
        watch: Watch,
        settings: Settings,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        self._watch = watch
        self._tls = tls
        self._handshakes: list[Handshakes] = []
        self._linger = settings.drain_seconds
        self._stop_at: float | None = None

    @property
    def connections(self) -> int:
        """Clients, with those who have yet to shake hands."""
        return len(self.server_state.connections) + sum(map(len, self._handshakes))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([] if self._tls is not None else sockets)
        if self._tls is None:
            return
        kind: Any = self.config.http_protocol_class
        make = partial(
            kind, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        self._handshakes = [
            Handshakes(each, self._tls, make, kind.limits, lambda: self.connections)
            for each in sockets or []
        ]
        self.servers: list[Any] = list(self._handshakes)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._watch.stopping:
            logging.shutdown()
            os._exit(128 + sig)
        self._watch.stopping = True
        self._stop_at = time.monotonic() + self._linger
        notify("STOPPING=1")

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.stopping.set()  # streams end, so that what is in flight does
        await super().shutdown(sockets)


def _reload_on_hangup(registry: Registry, server: Server) -> None:
    """SIGHUP has the cards read anew; from a terminal that was closed, it ends the server."""
    terminal = sys.stdin.isatty()

    def hung_up() -> None:
        if terminal and not sys.stdin.isatty():
            server.handle_exit(signal.SIGHUP, None)
            return
        try:
            changes = reload(registry)
        except CardsError as error:
            log.error("the cards stay as they were: %s", error)
        else:
            log.warning("the cards were read anew: %s", changes)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _config(app: object, settings: Settings, metrics: Metrics, told: Log) -> uvicorn.Config:
    def refused(error: RequestError) -> None:
        """Count and log what is refused before there is a request."""
        record = Record(time.perf_counter(), b"-", "-", "-")
        record.status, record.refusal = error.status, error.reason
        metrics.count(record)
        told.tell(record)

    class Limited(Connection):
        limits = Limits(
            connections=settings.max_connections,
            head_bytes=settings.max_head_bytes,
            body_bytes=settings.max_body_bytes,
            seconds=settings.read_seconds,
            refused=refused,
        )

    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        http=Limited,
        ws="none",
        lifespan="off",  # entered here, so that its errors are ours to word
        log_config=None,  # as everything is logged
        log_level="error",  # what is no HTTP is told by `refused`
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
    )


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _announce(registry: Registry, listener: socket.socket, settings: Settings) -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    unix = ""
    if settings.uds is not None:
        unix, where = f"--unix-socket {settings.uds} ", f"{scheme}://localhost"
        said = f"{where}/v1, by the socket {settings.uds}"
    else:
        bound: str = listener.getsockname()[0]
        port: int = listener.getsockname()[1]
        host = EVERYWHERE.get(bound, bound)
        where = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        said = f"{where}/v1, with a dashboard at {where}"
        if host != bound:
            said += ", and at all other addresses of this machine"
    ops = registry.device.ops
    key = '-H "api-key: $KEY" ' if settings.api_keys or settings.api_keys_file else ""
    cards = registry.cards.by_id
    loaded = [card.id for card in cards.values() if card.preload]
    names = ", ".join(loaded) or "nothing loaded yet"
    others = len(cards) - len(loaded)
    first = loaded[0] if loaded else next(iter(cards))
    sys.stdout.write(
        f"embedsvc {__version__}: {names}; {others} more when asked for\n"
        f"  with {ops.name}, {ops.dtype}, on {ops.device}; cards from {registry.cards.file}\n"
        f"  at {said}\n"
        f"Try: curl {unix}{where}/v1/embeddings {key}-H 'content-type: application/json' "
        f"""-d '{{"model": "{first}", "input": "hello"}}'\n"""
    )
    sys.stdout.flush()
