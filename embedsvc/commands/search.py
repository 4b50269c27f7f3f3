"""`embedsvc search`: the rows of an output of `embed` that are nearest to a query."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.manifest import EmbedOptions, Manifest
from embedsvc.bulk.outputs import output_for
from embedsvc.bulk.rank import best_first, score_all
from embedsvc.bulk.rows import to_json
from embedsvc.bulk.search import Hit, search
from embedsvc.commands.embedder_options import (
    add_source,
    check_arguments,
    open_ranker,
    open_source,
    run_loop,
)
from embedsvc.errors import BulkError, CardsError, RequestError
from embedsvc.telemetry.logs import within_line
from embedsvc.texts.prompts import SYNONYMS

EXAMPLES = """\
  embedsvc search reviews.parquet "arrived broken"
  embedsvc search notes.jsonl "what did we decide about backups?" -k 3 --json
  embedsvc search notes.jsonl "what did we decide about backups?" --rerank ms-marco-MiniLM-L6-v2
"""
CANDIDATES = 50
"""How many rows are reranked."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="what embedsvc embed wrote")
    option("query", metavar="QUERY", help="a text")
    option("-k", type=int, default=10, help="rows to show; default: 10")
    option(
        "--prompt", help="before the query; needed if INDEX was made with --prompt; default: none"
    )
    option("--rerank", metavar="M", help="a model that puts the nearest in order; default: none")
    option(
        "--candidates",
        type=int,
        default=CANDIDATES,
        metavar="N",
        help=f"rows that it puts in order; default: {CANDIDATES}",
    )
    option("--json", action="store_true", help="a line of JSON for each row, for programs")
    add_source(parser, "the one that made INDEX")


def run(args: argparse.Namespace) -> int:
    """Embed the query, and print the best rows. Raises `SetupError`."""
    check_arguments(args)
    for name, value in (("-k", args.k), ("--candidates", args.candidates)):
        if value < 1:
            raise CardsError(f"{name} must be at least 1, not {value}")
    output = output_for(args.index)
    if not os.path.lexists(args.index):
        raise BulkError(f"{args.index} is not there")
    index = output.open(args.index)
    if index.manifest.options.type == "sparse":
        raise BulkError(f"{args.index} has sparse vectors, which are not searched here")
    options = _query_options(index.manifest, args)

    async def embed() -> NDArray[np.float32]:
        async with open_source(args, index.manifest.model) as embedder:
            await _check(embedder, args, index.manifest)
            return (await embedder.embed([args.query], options)).vectors[0]

    try:
        query = run_loop(embed())
    except RequestError as error:
        raise BulkError(f"the query: {error}") from None
    if args.rerank is None:
        hits = search(index, query, args.k)
    else:
        hits = _reranked(args, search(index, query, max(args.k, args.candidates)))
    for hit in hits:
        print(as_json(hit) if args.json else as_line(hit))
    return 0


def _reranked(args: argparse.Namespace, nearest: list[Hit]) -> list[Hit]:
    """The best rows by a reranker's scores, each with the cosine that it was found by.

    Raises `SetupError`.
    """
    texts = [text if isinstance(text := hit.row.get("text"), str) else "" for hit in nearest]

    async def score() -> NDArray[np.float64]:
        async with open_ranker(args, args.rerank) as ranker:
            return await score_all(ranker, args.query, texts)

    try:
        scores = run_loop(score())
    except RequestError as error:
        raise BulkError(f"--rerank {args.rerank}: {error}") from None
    return [
        Hit(float(scores[i]), _headed("cosine", nearest[i].score, nearest[i].row))
        for i in best_first(scores, args.k)
    ]


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


def as_json(hit: Hit) -> str:
    """A row and its score as a line of JSON.

    >>> as_json(Hit(0.5, {"id": 1, "score": "five stars"}))
    '{"score":0.5,"id":1}'
    """
    return to_json(_headed("score", hit.score, hit.row)).decode()


def as_line(hit: Hit) -> str:
    """A row and its score as a line for people."""
    identity, text = (_on_one_line(hit.row.get(name)) for name in ("id", "text"))
    line = within_line(f"{hit.score:7.4f}  {identity}  {text}")
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _headed(name: str, score: float, row: dict[str, Any]) -> dict[str, Any]:
    """A row with a score before its columns. One of that name, which a user kept, gives way."""
    return {name: None} | row | {name: round(score, 6)}


def _on_one_line(value: object) -> str:
    """A value as JSON on one line, a string without its quotes."""
    plain = value if isinstance(value, str) else msgspec.json.decode(to_json(value))
    return " ".join((plain if isinstance(plain, str) else to_json(plain).decode()).split())
