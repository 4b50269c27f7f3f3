"""`embedsvc reload`: have a running server read its cards file again."""

import argparse

from embedsvc.commands.client import add_server, server_of

EXAMPLES = """\
  embedsvc reload

A file with a mistake changes nothing. SIGHUP does the same.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Print what has changed. Raises `ServerError`, which says what is wrong with the file."""
    changes = server_of(args).ask("POST", "/v1/reload", kind=dict[str, list[str]])
    for kind, names in changes.items():
        if names:
            print(f"{kind}: {', '.join(names)}")
    if not any(changes.values()):
        print("nothing has changed")
    return 0
