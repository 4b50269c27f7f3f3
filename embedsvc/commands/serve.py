"""`embedsvc serve`: the server."""

import argparse
import asyncio
import os
from pathlib import Path

from embedsvc.process.environment import read_environment
from embedsvc.process.logfile import log_to
from embedsvc.process.loop import new_event_loop
from embedsvc.server import serve
from embedsvc.settings import Settings, read_settings

DEFAULTS = Settings()
EXAMPLES = """\
  embedsvc serve
  embedsvc serve --port 9000 --models ./models.toml
  embedsvc serve --max-memory 8GB --keep-alive 10m
  EMBEDSVC_API_KEYS=some-key embedsvc serve --host 0.0.0.0

Every option is also an environment variable: --port is EMBEDSVC_PORT.
"""
OPTIONS = (
    ("--host", str, f"address to listen on (default {DEFAULTS.host})"),
    ("--port", str, f"port to listen on, 0 for any (default {DEFAULTS.port})"),
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
    ("--log-level", str, f"debug, info, warning or error (default {DEFAULTS.log_level})"),
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
)


def add(parser: argparse.ArgumentParser) -> None:
    """Its options: every setting but the keys."""
    for flag, kind, text in OPTIONS:
        parser.add_argument(flag, type=kind, help=text, metavar=flag[2:].upper())
    for flag, text in (
        ("--allow-ad-hoc", "let clients load models that have no card"),
        ("--insecure", "listen beyond this machine although there are no keys"),
    ):
        parser.add_argument(flag, action="store_true", default=None, help=text)
    parser.add_argument(
        "--environment-file",
        type=Path,
        help="file of NAME=value lines to set first",
        metavar="FILE",
    )


def run(given: argparse.Namespace) -> int:
    """Serve until it is told to stop. Raises `SetupError`."""
    if given.environment_file is not None:
        os.environ.update(read_environment(given.environment_file))
    settings = read_settings(vars(given), os.environ)
    if settings.log_file is not None:
        log_to(settings.log_file)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(settings))
    return 0
