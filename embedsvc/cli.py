"""The command line."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from embedsvc import __version__
from embedsvc.commands import (
    bench,
    convert,
    doctor,
    embed,
    models,
    pull,
    rm,
    search,
    service,
    similarity,
    verify,
)
from embedsvc.environment import read_environment
from embedsvc.errors import SetupError
from embedsvc.logfile import log_to
from embedsvc.loop import new_event_loop
from embedsvc.server import serve
from embedsvc.settings import Settings, read_settings

COMMANDS = {
    "embed": embed,
    "search": search,
    "similarity": similarity,
    "models": models,
    "pull": pull,
    "rm": rm,
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
        ("--cores", str, "cores to compute on, on a CPU (default: all)"),
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
        ("--uds", Path, "path of a unix socket to listen at, instead of an address"),
        ("--tls-cert", Path, "file of the certificate to speak TLS with"),
        ("--tls-key", Path, "file of its key, if that is another one"),
        ("--max-connections", str, "clients that may be connected"),
        ("--max-head-bytes", str, "bytes of one request's line and headers"),
        ("--read-seconds", str, "how long a client may take over a head, or keep others waiting"),
        ("--drain-seconds", str, "how long to take requests, not being ready, before stopping"),
        ("--otlp-endpoint", str, "OpenTelemetry collector to send traces to (default: none)"),
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
        ("models", "list the cards, and what of each is on this disk"),
        ("pull", "download models, or what is new of them"),
        ("rm", "delete models that were downloaded"),
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
