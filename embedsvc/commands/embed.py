"""`embedsvc embed`: from the texts of files to a file with their vectors."""

import argparse
import re
import sys
from pathlib import Path
from typing import get_args

from embedsvc.bulk.dtypes import STORED
from embedsvc.bulk.inputs.source import FORMATS
from embedsvc.bulk.job import Job, Run, Summary
from embedsvc.bulk.manifest import EmbedOptions, VectorType
from embedsvc.bulk.outputs.files import beside
from embedsvc.bulk.progress import Progress
from embedsvc.bulk.rows import OWN, Columns
from embedsvc.catalog.cards import Truncate
from embedsvc.commands.embedder_options import (
    add_source,
    add_vectors,
    check_arguments,
    open_source,
    run_loop,
)
from embedsvc.errors import CardsError
from embedsvc.system.text_files import printable
from embedsvc.texts.requests import Chunking

EXAMPLES = """\
  embedsvc embed reviews.jsonl --column body --id-column id --output reviews.parquet
  embedsvc embed notes/ --truncate chunk --output notes.jsonl
  zcat log.txt.gz | embedsvc embed --format lines --output log.npy
  embedsvc embed big.parquet --url http://127.0.0.1:8000/v1 --output out.parquet

A run that was interrupted goes on when it is started again. It ends with 0, or with 1 if rows were
set aside, in OUTPUT.rejects.jsonl.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    option("files", nargs="*", metavar="FILES", help="files and folders; none, or -: what is piped")
    option("--output", type=Path, required=True, help="a name in .parquet, .jsonl or .npy")
    option("--overwrite", action="store_true", help="replace OUTPUT if it is there")
    option("--format", choices=FORMATS, help="of FILES whose names do not tell; default: by name")
    option("--delimiter", metavar="C", help="between the cells of a table; default: what fits")
    option("--quote", metavar="C", help='around the cells of a table; default: " in CSV, else none')
    option("--no-header", action="store_true", help="columns of a table are numbers, from 1")
    option("--column", default=Columns().text, help="with the texts; default: text")
    option("--id-column", metavar="COLUMN", help="kept as id; default: the line's number")
    option("--keep", default="", metavar="COLUMNS", help="others to carry along: title,url")
    option("--strict", action="store_true", help="end at the first row that will not do")
    add_source(parser)
    option = add_vectors(parser).add_argument
    option(
        "--dtype", choices=STORED, default="float32", help="of what is written; default: float32"
    )
    option(
        "--type", choices=get_args(VectorType), default="dense", help="of vectors; default: dense"
    )
    option("--truncate", choices=get_args(Truncate), help="texts that are too long; default: error")
    option(
        "--chunking",
        type=read_chunking,
        metavar="TOKENS[:OVERLAP]",
        help="late chunking; default: none",
    )


def read_chunking(value: str) -> Chunking:
    """A size and an overlap in tokens. Raises `ArgumentTypeError`.

    >>> read_chunking("64:8")
    Chunking(size=64, overlap=8)
    """
    found = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", value)
    if found is None or not int(found[2] or 0) < int(found[1]):
        raise argparse.ArgumentTypeError(
            f"must be tokens, or tokens:overlap with fewer that overlap, not {value!r}"
        )
    return Chunking(int(found[1]), int(found[2] or 0))


def run(args: argparse.Namespace) -> int:
    """Embed, and print what was done. Returns 1 if rows were set aside. Raises `SetupError`."""
    job = _read_job(args)
    progress = Progress(sys.stderr)

    async def embed(run: Run) -> Summary:
        async with open_source(args) as embedder:
            return await run.embed(embedder)

    try:
        with Run(job, progress) as run:
            summary = run_loop(embed(run))
            progress.close()
            run.write_output(summary.manifest)
    except KeyboardInterrupt:
        progress.close()
        kept = beside(job.output, "partial")
        if kept.exists():
            print(f"interrupted; what is done is in {kept}: start again to go on", file=sys.stderr)
        raise
    finally:
        progress.close()
    print(_summarize(job, summary))
    return 1 if summary.after.rejected else 0


def _read_job(args: argparse.Namespace) -> Job:
    check_arguments(args)
    if args.type == "sparse":
        _check_sparse(args)
    keep = tuple(name for name in args.keep.split(",") if name)
    for name in keep:
        if name in OWN:
            raise CardsError(f"--keep {name}: the output has a column of that name")
    delimiter = "\t" if args.delimiter == "\\t" else args.delimiter
    quote = "" if args.quote == "none" else args.quote
    for option, value in (("--delimiter", delimiter), ("--quote", quote)):
        if value and (len(value) != 1 or value in "\r\n"):
            raise CardsError(f"{option} must be one character, not {value!r}")
    if delimiter == "" or (delimiter and delimiter == quote):
        raise CardsError("--delimiter must be one character, and another than --quote")
    return Job(
        inputs=tuple(args.files) or ("-",),
        output=args.output,
        format=args.format,
        delimiter=delimiter,
        quote=quote,
        header=not args.no_header,
        columns=Columns(args.column, args.id_column, keep),
        options=EmbedOptions(
            args.input_type, args.prompt, args.truncate, args.dimensions, args.chunking, args.type
        ),
        dtype=args.dtype,
        strict=args.strict,
        overwrite=args.overwrite,
    )


def _check_sparse(args: argparse.Namespace) -> None:
    """Raise `CardsError` for what sparse vectors have not."""
    for option in ("--url", "--dimensions", "--chunking"):
        if getattr(args, option[2:]) is not None:
            raise CardsError(f"--type sparse: not with {option}")
    if args.dtype != "float32":
        raise CardsError("--type sparse: its weights are float32, so not with --dtype")
    if args.output.suffix.lower() == ".npy":
        raise CardsError("--type sparse: a name in .parquet or .jsonl, not .npy, for --output")


def _summarize(job: Job, summary: Summary) -> str:
    manifest, before, after, totals = summary
    here = after.items - before.items
    dtype = "" if manifest.dtype == "float32" else f" in {manifest.dtype}"
    vectors = f"{manifest.rows:,} vectors of {manifest.dimensions} dimensions{dtype}"
    if manifest.options.type == "sparse":
        vectors = f"{manifest.rows:,} sparse vectors"
    seconds = totals.seconds or 1.0
    rates = f"{here / seconds:,.0f} rows/s, {totals.tokens / seconds:,.0f} tokens/s"
    lines = [
        f"{printable(job.output)}: {vectors}, by {manifest.model}",
        f"  {here:,} rows in {totals.seconds:,.1f} s: {rates}",
    ]
    if before.items:
        lines.append(f"  {before.items:,} rows were done before")
    if totals.truncated:
        lines.append(f"  {totals.truncated:,} texts were cut")
    if totals.split:
        lines.append(f"  {totals.split:,} texts were embedded in parts")
    if after.rejected:
        rejects = printable(beside(job.output, "rejects.jsonl"))
        lines.append(f"  {after.rejected:,} rows were set aside, in {rejects}")
    return "\n".join(lines)
