"""`embedsvc reload`: have a running server go by what its cards file says now."""

import argparse

from embedsvc.commands.client import add_server, server_of

EXAMPLES = """\
  embedsvc reload

A file with a mistake changes nothing. SIGHUP does the same.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_server(parser)


def run(given: argparse.Namespace) -> int:
    """Print what is other than it was. Raises `ServerError`, with the mistake if there is one."""
    changes = server_of(given).ask("POST", "/v1/reload", kind=dict[str, list[str]])
    for kind, names in changes.items():
        if names:
            print(f"{kind}: {', '.join(names)}")
    if not any(changes.values()):
        print("nothing has changed")
    return 0
