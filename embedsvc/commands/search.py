"""`embedsvc search`: the rows of an output of `embed` that are nearest to a query."""

import argparse
import os
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.manifest import EmbedOptions, Manifest
from embedsvc.bulk.outputs import output_for
from embedsvc.bulk.rows import to_json
from embedsvc.bulk.search import Hit, search
from embedsvc.commands.embedder_options import add_source, check_arguments, open_source, run_loop
from embedsvc.errors import BulkError, CardsError, RequestError
from embedsvc.telemetry.logs import within_line
from embedsvc.texts.prompts import SYNONYMS

EXAMPLES = """\
  embedsvc search reviews.parquet "arrived broken"
  embedsvc search notes.jsonl "what did we decide about backups?" -k 3 --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="what embedsvc embed wrote")
    option("query", metavar="QUERY", help="a text")
    option("-k", type=int, default=10, help="rows to show; default: 10")
    option(
        "--prompt", help="before the query; needed if INDEX was made with --prompt; default: none"
    )
    option("--json", action="store_true", help="a line of JSON for each row, for programs")
    add_source(parser, "the one that made INDEX")


def run(args: argparse.Namespace) -> int:
    """Embed the query, and print the best rows. Raises `SetupError`."""
    check_arguments(args)
    if args.k < 1:
        raise CardsError(f"-k must be at least 1, not {args.k}")
    output = output_for(args.index)
    if not os.path.lexists(args.index):
        raise BulkError(f"{args.index} is not there")
    index = output.open(args.index)
    options = _query_options(index.manifest, args)

    async def embed() -> NDArray[np.float32]:
        async with open_source(args, index.manifest.model) as embedder:
            await _check(embedder, args, index.manifest)
            return (await embedder.embed([args.query], options)).vectors[0]

    try:
        query = run_loop(embed())
    except RequestError as error:
        raise BulkError(f"the query: {error}") from None
    for hit in search(index, query, args.k):
        print(_json(hit) if args.json else _line(hit))
    return 0


def _query_options(manifest: Manifest, args: argparse.Namespace) -> EmbedOptions:
    """Options for the query: its type is `query` if the rows were embedded as documents."""
    if args.prompt is not None:
        return msgspec.structs.replace(manifest.options.for_one_vector(), prompt=args.prompt)
    if manifest.options.prompt is not None:
        raise BulkError(
            f"{args.index} was made with --prompt {manifest.options.prompt!r}: "
            "say the --prompt of queries, which may be the same, or empty"
        )
    kind = manifest.options.input_type
    if kind is not None and "document" in SYNONYMS.get(kind, ()):
        kind = "query"
    return msgspec.structs.replace(manifest.options.for_one_vector(), input_type=kind)


async def _check(embedder: Embedder, args: argparse.Namespace, manifest: Manifest) -> None:
    """Raises `BulkError` if the model is not the one that made the index."""
    try:
        sample = await probe(embedder, manifest.options)
    except BulkError as error:
        raise BulkError(f"{args.index} was made by `{manifest.model}`; {error}") from None
    if not manifest.is_same_model(sample):
        same = embedder.model == manifest.model
        this = "another model of that name" if same else f"`{embedder.model}`"
        raise BulkError(f"{args.index} was made by `{manifest.model}`, and this is {this}")


def _json(hit: Hit) -> str:
    return to_json({"score": round(hit.score, 6)} | hit.row).decode()


def _line(hit: Hit) -> str:
    identity, text = (_on_one_line(hit.row.get(name)) for name in ("id", "text"))
    line = within_line(f"{hit.score:7.4f}  {identity}  {text}")
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _on_one_line(value: object) -> str:
    """A value as JSON on one line, a string without its quotes."""
    plain = value if isinstance(value, str) else msgspec.json.decode(to_json(value))
    return " ".join((plain if isinstance(plain, str) else to_json(plain).decode()).split())
