"""`embedsvc load MODEL`: have a running server load a model."""

import argparse

from embedsvc.commands.client import Instance, add_server, server_of
from embedsvc.commands.progress import Bar
from embedsvc.errors import CardsError, ServerError
from embedsvc.wording.quantities import bytes_in_words, read_keep_alive

EXAMPLES = """\
  embedsvc load bge-m3
  embedsvc load bge-m3 --keep-alive 10m
  embedsvc load bge-m3 --pin
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", help="id or alias; with the server's --allow-ad-hoc, a repository")
    parser.add_argument(
        "--keep-alive",
        metavar="TIME",
        help="how long without requests, as 600, 10m or 1h30m; -1: for ever; default: as its card, "
        "or the server, says",
    )
    parser.add_argument("--pin", action="store_true", default=None, help="never unload it unasked")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Have it loaded, and return when it is ready. Raises `SetupError`."""
    try:
        keep_alive = None if args.keep_alive is None else read_keep_alive(args.keep_alive)
    except ValueError as error:
        raise CardsError(f"--keep-alive={args.keep_alive}: {error}") from None
    server = server_of(args)
    body = {"model": args.model, "keep_alive": keep_alive, "pin": args.pin}
    made = instance = server.ask("POST", "/v1/instances", body, kind=Instance)
    bar, state = Bar(""), ""
    for instance in server.events(f"/v1/instances/{made.id}/events", Instance):
        if instance.state != state:
            bar.end()
            state = instance.state
            bar = Bar(f"{instance.model} {state}")
        if state in ("downloading", "loading"):
            bar.show(**instance.progress)
    bar.end()
    if instance.state != "ready":
        raise ServerError(instance.error or f"{instance.model} is {instance.state}")
    print(f"{instance.model}: ready, {bytes_in_words(instance.memory_bytes)}")
    return 0
