"""`embedsvc similarity`: how similar texts are, by the cosines of their vectors."""

import argparse
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.commands.embedder_options import (
    add_source,
    add_vectors,
    check_arguments,
    open_source,
    run_loop,
)
from embedsvc.errors import BulkError, RequestError
from embedsvc.system.text_files import read_text
from embedsvc.telemetry.logs import within_line

EXAMPLES = """\
  embedsvc similarity "a cat on a mat" "a kitten on a rug" "interest rates rose"
  embedsvc similarity --lines titles.txt --json
"""
TEXTS = 64
"""How many texts are embedded at once."""
MOST = 2048
"""How many texts may be compared. Each is compared with each."""
WIDTH = 60
"""How many characters of a text are shown."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="two or more")
    parser.add_argument(
        "--lines", type=Path, metavar="FILE", help="a file with one on each line; default: none"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    add_source(parser)
    add_vectors(parser)


def run(args: argparse.Namespace) -> int:
    """Embed, and print the matrix of cosines. Raises `SetupError`."""
    check_arguments(args)
    texts: list[str] = [*args.texts, *(_lines(args.lines) if args.lines else [])]
    if len(texts) < 2 or not all(texts):
        raise BulkError("similarity needs two texts or more, and none of them empty")
    if len(texts) > MOST:
        raise BulkError(f"similarity compares {MOST:,} texts at most, and these are {len(texts):,}")
    options = EmbedOptions(args.input_type, args.prompt, dimensions=args.dimensions)

    async def embed() -> tuple[str, NDArray[np.float32]]:
        async with open_source(args) as embedder:
            parts = [
                (await embedder.embed(texts[first : first + TEXTS], options)).vectors
                for first in range(0, len(texts), TEXTS)
            ]
            return embedder.model, np.concatenate(parts)

    try:
        model, vectors = run_loop(embed())
    except RequestError as error:
        raise BulkError(str(error)) from None
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T).astype(float).round(6)
    if args.json:
        answer = {"model": model, "texts": texts, "cosines": cosines.tolist()}
        print(msgspec.json.encode(answer).decode())
        return 0
    print("".join(f"{number:>7}" for number in range(1, len(texts) + 1)))
    for number, (text, row) in enumerate(zip(texts, cosines, strict=True), 1):
        text = within_line(text)
        shown = text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
        print("".join(f"{cosine:7.3f}" for cosine in row) + f"  {number} {shown}")
    return 0


def _lines(file: Path) -> list[str]:
    return [line for line in read_text(file, BulkError).split("\n") if line.strip()]
