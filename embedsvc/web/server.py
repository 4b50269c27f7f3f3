"""Running the server: its sockets, uvicorn within our limits, signals, and how it ends."""

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Generator
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
from embedsvc.web.connections.tls import Handshakes, tls_context
from embedsvc.web.middleware import Tell

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept. Clients keep theirs for minutes, and may send their next
request just as a shorter limit ends."""
CLOSE_SECONDS = 10.0
"""How long the device may take to finish when the last answer is written."""
OPEN_FILES = 10_240
"""As many open files as macOS allows. A connection is one, and the usual limit there is 256."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is in flight. Raises `SetupError`."""
    human = settings.log_format == "human"
    human = human or (settings.log_format == "auto" and sys.stderr.isatty())
    with closing(open_log(sys.stderr, json=not human, level=settings.log_level)) as opened:
        await _serve(settings, opened)


async def _serve(settings: Settings, request_log: Log) -> None:
    _allow_open_files()
    tls = tls_context(settings)
    with listening(settings) as listeners, _when_over(settings, request_log) as tell:
        app = create_app(settings, tell)
        metrics: Metrics = app.state.metrics
        async with app.router.lifespan_context(app):
            config = _config(app, settings, metrics, request_log)
            server = Server(config, app.state.watch, settings, tls)
            metrics.read_also(
                lambda: [
                    counter("log_lines_lost", "Lines not written.", [], [([], request_log.lost)]),
                    gauge("connections", "Open ones.", [], [([], server.connections)]),
                ]
            )
            for number in SIGNALS:  # while the process lives, not only while uvicorn serves
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
def _when_over(settings: Settings, request_log: Log) -> Generator[Tell]:
    """What to call with the record of each request that is over. Raises `CardsError`."""
    if settings.otlp_endpoint is None:
        yield request_log.tell
        return
    # Few servers send traces, and the libraries for it are slow to import.
    from embedsvc.telemetry.traces import Traces

    with closing(Traces(settings.otlp_endpoint, __version__)) as traces:

        def tell(record: Record) -> None:
            request_log.tell(record)
            traces.tell(record)

        yield tell


class Server(uvicorn.Server):
    """uvicorn's server, with three differences.

    It goes on taking requests for a while after a signal, if the settings say so. A second signal
    ends the process at once. With TLS, it bounds how long clients may shake hands.
    """

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
        """How many clients there are, with those that have yet to shake hands."""
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
        app.state.stopping.set()  # streams end, which would go on for ever
        await super().shutdown(sockets)


def _reload_on_hangup(registry: Registry, server: Server) -> None:
    """Read the cards file again on SIGHUP, and end the server if a closed terminal sent it."""
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


def _config(app: object, settings: Settings, metrics: Metrics, request_log: Log) -> uvicorn.Config:
    def refused(error: RequestError) -> None:
        """Count and log what was refused before there was a request."""
        record = Record(time.perf_counter(), b"-", "-", "-")
        record.status, record.refusal = error.status, error.reason
        metrics.count(record)
        request_log.tell(record)

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
        lifespan="off",  # `_serve` enters it, so that its errors are told in our words
        log_config=None,  # uvicorn logs where everything else does
        log_level="error",  # `refused` logs what is no HTTP
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks for a client's address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
    )


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _announce(registry: Registry, listener: socket.socket, settings: Settings) -> None:
    """Print which models there are, where the server listens, and a command to try."""
    scheme = "http" if settings.tls_cert is None else "https"
    unix = ""
    if settings.uds is not None:
        unix, where = f"--unix-socket {settings.uds} ", f"{scheme}://localhost"
        place = f"{where}/v1, by the socket {settings.uds}"
    else:
        bound: str = listener.getsockname()[0]
        port: int = listener.getsockname()[1]
        host = EVERYWHERE.get(bound, bound)
        where = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        place = f"{where}/v1, with a dashboard at {where}"
        if host != bound:
            place += ", and at all other addresses of this machine"
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
        f"  at {place}\n"
        f"Try: curl {unix}{where}/v1/embeddings {key}-H 'content-type: application/json' "
        f"""-d '{{"model": "{first}", "input": "hello"}}'\n"""
    )
    sys.stdout.flush()
