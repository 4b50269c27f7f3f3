"""`embedsvc ps`: list the models that a running server has loaded."""

import argparse

from embedsvc.commands.client import Instance, Instances, add_server, server_of
from embedsvc.commands.table import write_table
from embedsvc.wording.plain import within_line
from embedsvc.wording.quantities import bytes_in_words

EXAMPLES = """\
  embedsvc ps
  embedsvc ps --url http://10.0.0.5:8000 --api-key KEY
"""

HEADINGS = ("model", "state", "memory", "requests", "kept", "id")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_server(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each model, and why some failed. Raises `ServerError`."""
    instances = server_of(args).ask("GET", "/v1/instances", kind=Instances)
    write_table(HEADINGS, [_row(instance) for instance in instances.data])
    for instance in instances.data:
        if instance.error:
            print(within_line(f"{instance.model} failed: {instance.error}"))
    return 0


def _row(instance: Instance) -> tuple[str, ...]:
    seconds = instance.keep_alive
    kept = "while used" if seconds == 0 else f"{seconds:g} s unused"
    if instance.pinned or seconds < 0:
        kept = "pinned" if instance.pinned else "for ever"
    if instance.state == "failed":
        kept = "pinned, not loaded" if instance.pinned else "not loaded"
    return (
        instance.model,
        f"{instance.state}{_share(**instance.progress)}"
        if instance.state in ("downloading", "loading")
        else instance.state,
        bytes_in_words(instance.memory_bytes),
        str(instance.users),
        kept,
        instance.id,
    )


def _share(done: int, total: int) -> str:
    return f" {100 * done // total} %" if total else ""
