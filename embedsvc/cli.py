"""The command line."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from embedsvc import __version__
from embedsvc.access import check_address
from embedsvc.app import create_app
from embedsvc.commands import bench, convert, doctor, embed, search, service, similarity, verify
from embedsvc.environment import read_environment
from embedsvc.errors import AddressError, SetupError
from embedsvc.logfile import log_to
from embedsvc.logs import Log, open_log
from embedsvc.loop import new_event_loop
from embedsvc.metrics import counter
from embedsvc.notify import notify
from embedsvc.registry import Registry
from embedsvc.settings import Settings, read_settings

COMMANDS = {
    "embed": embed,
    "search": search,
    "similarity": similarity,
    "bench": bench,
    "convert": convert,
    "doctor": doctor,
    "service": service,
    "verify": verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `embedsvc`; the exit code is 0, 2 for wrong usage, or a `SetupError`'s own."""
    given = _parser().parse_args(arguments)
    try:
        if given.command in COMMANDS:
            return COMMANDS[given.command].run(given)
        if given.environment_file is not None:
            os.environ.update(read_environment(given.environment_file))
        settings = read_settings(vars(given), os.environ)
        if settings.log_file is not None:
            log_to(settings.log_file)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings))
    except KeyboardInterrupt:  # before it served
        return 130
    except SetupError as error:
        print(f"embedsvc: {error}", file=sys.stderr)
        return error.exit_code
    return 0


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is in flight. Raises `SetupError`."""
    log = open_log(
        sys.stderr,
        json=settings.log_format == "json"
        or (settings.log_format == "auto" and not sys.stderr.isatty()),
        level=settings.log_level,
    )
    try:
        await _serve(settings, log)
    finally:
        log.close()


async def _serve(settings: Settings, log: Log) -> None:
    app = create_app(settings, log.tell)
    app.state.metrics.read_also(
        lambda: [counter("log_lines_lost", "Lines not written.", [], [([], log.lost)])]
    )
    listener = _listen(settings)
    server = Server(
        uvicorn.Config(
            app,
            lifespan="off",  # entered here, so that its errors are ours to word
            log_config=None,  # as everything is logged
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks who the client is
            timeout_keep_alive=75,  # clients keep connections for minutes, and race shorter limits
            timeout_graceful_shutdown=int(settings.shutdown_seconds),
        )
    )
    with listener:
        async with app.router.lifespan_context(app):
            _announce(app.state.registry, listener, settings)
            notify("READY=1")
            # Stopped by a signal, uvicorn sends it to us again, when it has done its work.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _ignore)
            await server.serve(sockets=[listener])


class Server(uvicorn.Server):
    """Has the app end its streams before it waits for requests in flight."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.stopping.set()
        await super().shutdown(sockets)


def _ignore(_number: int, _frame: object) -> None:
    pass


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        check_address(str(address[0]), settings)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # from here on clients wait for the model rather than be turned away
    except OSError as error:
        raise AddressError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def _announce(registry: Registry, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    ops = registry.device.ops
    key = '-H "api-key: $KEY" ' if settings.api_keys or settings.api_keys_file else ""
    cards = registry.cards.by_id
    loaded = [card.id for card in cards.values() if card.preload]
    names = ", ".join(loaded) or "nothing loaded yet"
    others = len(cards) - len(loaded)
    first = loaded[0] if loaded else next(iter(cards))
    print(
        f"embedsvc {__version__}: {names}; {others} more when asked for\n"
        f"  with {ops.name}, {ops.dtype}, on {ops.device}; cards from {registry.cards.file}\n"
        f"  at http://{address}:{port}/v1, with a dashboard at http://{address}:{port}\n"
        f"Try: curl http://{address}:{port}/v1/embeddings {key}-H 'content-type: application/json' "
        f"""-d '{{"model": "{first}", "input": "hello"}}'""",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedsvc", description="An OpenAI-compatible embedding server for one machine."
    )
    parser.add_argument("--version", action="version", version=f"embedsvc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser(
        "serve",
        help="serve the models of a cards file",
        allow_abbrev=False,
        epilog="Every option is also an environment variable: --port is EMBEDSVC_PORT.",
    )
    defaults = Settings()
    for flag, kind, text in (
        ("--host", str, f"address to listen on (default {defaults.host})"),
        ("--port", str, f"port to listen on, 0 for any (default {defaults.port})"),
        ("--models", Path, "cards file (default: ./models.toml, the user's, the packaged one)"),
        ("--backend", str, "auto, mlx or numpy (default auto: mlx where there is a GPU)"),
        ("--max-memory", str, "bytes that loaded models may take (default: 0.7 of the device's)"),
        ("--keep-alive", str, "seconds without requests before a model is unloaded (-1: never)"),
        ("--load-wait-seconds", str, "how long a request waits for its model to load"),
        ("--api-keys-file", Path, "file of keys, one a line (or EMBEDSVC_API_KEYS=key,key)"),
        ("--allowed-hosts", str, "names, beside this machine's, to answer to without keys"),
        ("--cors-origins", str, "origins whose web pages may call, * for all"),
        ("--max-inputs", str, "inputs of one request"),
        ("--max-request-tokens", str, "tokens of one request"),
        ("--max-body-bytes", str, "bytes of one request"),
        ("--max-batch-tokens", str, "tokens in one forward pass (default: the backend's own)"),
        ("--max-waiting-tokens", str, "tokens that may wait before clients are sent away"),
        ("--cache-bytes", str, "memory for each model's finished vectors, 0 for none"),
        ("--cache-folder", str, "where vectors are kept across restarts (default: nowhere)"),
        ("--cache-folder-bytes", str, "size of each model's file there"),
        ("--log-file", Path, "where to log (default: standard output and error)"),
        ("--log-level", str, f"debug, info, warning or error (default {defaults.log_level})"),
        ("--log-format", str, "human, json or auto: human on a terminal (default auto)"),
        ("--hang-seconds", str, "how long overdue a pass may be before the server ends itself"),
        ("--shutdown-seconds", str, "how long to wait for requests in flight when stopping"),
    ):
        serve_parser.add_argument(flag, type=kind, help=text, metavar=flag[2:].upper())
    serve_parser.add_argument(
        "--allow-ad-hoc",
        action="store_true",
        default=None,
        help="let clients load models that have no card",
    )
    serve_parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="listen beyond this machine although there are no keys",
    )
    serve_parser.add_argument(
        "--environment-file",
        type=Path,
        help="file of NAME=value lines to set first",
        metavar="FILE",
    )
    for name, text in (
        ("embed", "write the vectors of files, folders or lines to a file"),
        ("search", "search what embed wrote"),
        ("similarity", "compare texts"),
        ("bench", "measure a running server, this one or any other"),
        ("convert", "write a model in another precision, and print what that costs"),
        ("doctor", "say what is here, what is wrong with it, and what would help"),
        ("service", "have launchd or systemd keep a server running"),
        ("verify", "check that a model computes what it should on this machine"),
    ):
        command = commands.add_parser(
            name,
            help=text,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        COMMANDS[name].add(command)
    return parser
