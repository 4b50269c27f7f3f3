"""`embedsvc load MODEL`: have a running server load a model."""

import argparse

from embedsvc.commands.progress import Bar
from embedsvc.commands.server import Instance, add_server, server_of
from embedsvc.errors import ServerError
from embedsvc.instances.memory import in_words

EXAMPLES = """\
  embedsvc load bge-m3
  embedsvc load bge-m3 --keep-alive 600
  embedsvc load bge-m3 --pin
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("model", help="id or alias; with the server's --allow-ad-hoc, a repository")
    parser.add_argument(
        "--keep-alive", type=float, metavar="S", help="seconds without requests; -1 is for ever"
    )
    parser.add_argument("--pin", action="store_true", default=None, help="never unload it unasked")
    add_server(parser)


def run(given: argparse.Namespace) -> int:
    """Return when it is ready. Raises `ServerError`."""
    server = server_of(given)
    body = {"model": given.model, "keep_alive": given.keep_alive, "pin": given.pin}
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
    print(f"{instance.model}: ready, {in_words(instance.memory_bytes)}")
    return 0
