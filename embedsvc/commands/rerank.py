"""`embedsvc rerank`: the texts of files in the order in which they answer a question."""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.inputs import READERS
from embedsvc.bulk.inputs.source import FORMATS, find_sources
from embedsvc.bulk.rank import best_first, score_all
from embedsvc.bulk.rows import BadRow, Columns, InputRow
from embedsvc.bulk.search import Hit
from embedsvc.commands.embedder_options import add_source, check_arguments, open_ranker, run_loop
from embedsvc.commands.search import as_json, as_line
from embedsvc.errors import BulkError, CardsError, RequestError
from embedsvc.system.streams import complain
from embedsvc.telemetry.logs import within_line

EXAMPLES = """\
  embedsvc rerank "is it waterproof?" reviews.jsonl --column body -k 3
  grep -ril backup notes/ | embedsvc rerank "what is copied at night?" --format lines

The exit code is 1 if a row has no text.
"""
MOST = 100_000
"""How many rows may be ranked at once. All of them are held in memory."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option("query", metavar="QUERY", help="a text, such as a question")
    option("files", nargs="*", metavar="FILES", help="as of embed; none, or -: what is piped")
    option("-k", type=int, default=10, help="rows to show; default: 10")
    option("--format", choices=FORMATS, help="of FILES whose names do not tell; default: by name")
    option("--column", default=Columns().text, help="with the texts; default: text")
    option("--id-column", metavar="COLUMN", help="kept as id; default: the line's number")
    option("--json", action="store_true", help="a line of JSON for each row, for programs")
    add_source(parser, "the first that reranks, else the first")


def run(args: argparse.Namespace) -> int:
    """Score all rows, and print the best. Returns 1 if rows were left out. Raises `SetupError`."""
    check_arguments(args)
    if args.k < 1:
        raise CardsError(f"-k must be at least 1, not {args.k}")
    if not args.query:
        raise BulkError("the query is empty")
    rows: list[Hit] = []
    bad = 0
    for row in _read(args):
        if isinstance(row, BadRow):
            bad += 1
            complain(f"{row.file}:{row.line}: left out: {within_line(row.reason)}")
        else:
            rows.append(Hit(0.0, {"id": row.id, "text": row.text}))
        if len(rows) > MOST:
            raise BulkError(f"rerank takes {MOST:,} rows at most")

    if not rows:
        return 1 if bad else 0

    async def score() -> NDArray[np.float64]:
        async with open_ranker(args, args.model) as ranker:
            return await score_all(ranker, args.query, [hit.row["text"] for hit in rows])

    try:
        scores = run_loop(score())
    except RequestError as error:
        raise BulkError(str(error)) from None
    for i in best_first(scores, args.k):
        hit = Hit(float(scores[i]), rows[i].row)
        print(as_json(hit) if args.json else as_line(hit))
    return 1 if bad else 0


def _read(args: argparse.Namespace) -> Iterator[InputRow]:
    """The rows of all inputs. Raises `BulkError`."""
    for source in find_sources(args.files, args.format, None):
        yield from READERS[source.format](source, Columns(args.column, args.id_column))
