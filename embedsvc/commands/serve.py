"""`embedsvc serve`: run the server."""

import argparse
import asyncio
import os
from pathlib import Path

from embedsvc.commands.settings import add_settings
from embedsvc.daemon.environment import read_environment
from embedsvc.settings import read_settings
from embedsvc.system.loop import new_event_loop
from embedsvc.telemetry.logfile import log_to
from embedsvc.web.server import serve

EXAMPLES = """\
  embedsvc serve
  embedsvc serve --port 9000 --models ./models.toml
  embedsvc serve --max-memory 8GB --keep-alive 10m
  EMBEDSVC_API_KEYS=some-key embedsvc serve --host 0.0.0.0

Every option is also an environment variable: --port is EMBEDSVC_PORT. Sizes are in bytes and times
in seconds, or have a unit: 8GB, 512MiB, 1.5g; 10m, 1h30m, 2d.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options: every setting but the keys."""
    add_settings(parser.add_argument)
    parser.add_argument(
        "--environment-file",
        type=Path,
        help="file of NAME=value lines to set first; default: none",
        metavar="PATH",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal stops the server. Raises `SetupError`."""
    if args.environment_file is not None:
        os.environ.update(read_environment(args.environment_file))
    settings = read_settings(vars(args), os.environ)
    if settings.log_file is not None:
        log_to(settings.log_file)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(settings))
    return 0
