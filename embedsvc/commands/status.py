"""`embedsvc status`: whether a running server is ready, and what it has loaded."""

import argparse
from typing import Any

from embedsvc.commands.client import Instances, add_server, server_of
from embedsvc.errors import ServerError
from embedsvc.web.dialects.openai_schema import ModelList
from embedsvc.wording.quantities import bytes_in_words

EXAMPLES = """\
  embedsvc status
  embedsvc status --url http://10.0.0.5:8000 --api-key KEY
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Print a few lines. Returns 1 if it is not ready. Raises `ServerError` if there is none."""
    server = server_of(args)
    instances = server.ask("GET", "/v1/instances", kind=Instances)
    models = server.ask("GET", "/v1/models", kind=ModelList).data
    trouble = ""
    try:
        server.ask("GET", "/ready", kind=dict[str, Any])
    except ServerError as error:
        trouble = str(error)
    loaded = [each.model for each in instances.data if each.state == "ready"]
    memory, most = (
        bytes_in_words(instances.memory_bytes),
        bytes_in_words(instances.max_memory_bytes),
    )
    print(f"{server.url}: {f'not ready: {trouble}' if trouble else 'ready'}")
    print(f"loaded: {', '.join(loaded) or 'nothing'}; {len(models)} names to ask for")
    print(f"memory: {memory} of {most}")
    return 1 if trouble else 0
