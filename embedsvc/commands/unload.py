"""`embedsvc unload MODEL`: have a running server unload a model."""

import argparse
from urllib.parse import quote

from embedsvc.commands.client import Instance, Instances, add_server, server_of
from embedsvc.errors import ServerError

EXAMPLES = """\
  embedsvc unload bge-m3
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", help="id or alias")
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Have it unloaded, once requests in flight are answered. Raises `ServerError`."""
    server = server_of(args)
    found = server.ask("GET", f"/v1/instances?model={quote(args.model)}", kind=Instances).data
    if not found:
        raise ServerError(f"`{args.model}` is not loaded")
    for instance in found:
        server.ask("DELETE", f"/v1/instances/{instance.id}", kind=Instance)
    print(f"{found[0].model}: unloaded once its requests are answered")
    return 0
