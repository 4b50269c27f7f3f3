"""`embedsvc bench`: how fast a server is that speaks OpenAI's API, this one or another.

It may also be one that ranks documents, as Cohere's, Jina's and vLLM's clients ask for it.
"""

import argparse
import random
import sys
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from embedsvc.bench.answers import Check, WrongAnswer, check_scores, check_vectors, read_vectors
from embedsvc.bench.target import PATIENCE_SECONDS, Target
from embedsvc.bench.texts import (
    RANKING_SHAPES,
    SHAPES,
    SWEEPS,
    Ask,
    Shape,
    ask_for_scores,
    ask_for_vectors,
    make_requests,
    shape_named,
    sweep_named,
)
from embedsvc.bench.window import measure
from embedsvc.commands.address import DEFAULT_URL, add_address, key_of, url_of
from embedsvc.errors import CardsError, ServerError, key_refused

EXAMPLES = """\
  embedsvc bench
  embedsvc bench --url http://127.0.0.1:11434/v1 --model all-minilm --seconds 10
  embedsvc bench --shapes 4x256,open:80 --json
  embedsvc bench --task rerank --model ms-marco-MiniLM-L6-v2

The exit code is 1 if an answer was an error or wrong.
"""

HEADINGS = ("shape", "texts/s", "tokens/s", "p50 ms", "p90 ms", "p99 ms", "errors")
FIGURES = ("texts_per_second", "tokens_per_second", "p50_ms", "p90_ms", "p99_ms")
LONGEST = 86_400
"""The longest window, in seconds."""


class Task(NamedTuple):
    """What the server is to do."""

    path: str
    shapes: dict[str, Shape]
    """Those that are measured where none are named."""
    ask: Ask


TASKS = {
    "embed": Task("/embeddings", SHAPES, ask_for_vectors),
    "rerank": Task("/rerank", RANKING_SHAPES, ask_for_scores),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    option = parser.add_argument
    add_address(option, "/v1")
    option("--model", metavar="M", help="its name there; default: the first that the server lists")
    option("--task", choices=TASKS, default="embed", help="what the server is to do")
    option(
        "--shapes",
        default="",
        help=f"{', '.join(SHAPES)}, {', '.join(RANKING_SHAPES)}, 4x256 (4 clients with 256 texts "
        "each), open:80 (80 texts a second, as they come); default: all that are for the task",
    )
    option("--sweeps", default="", help=f"of {', '.join(SWEEPS)}: how it bears more of each")
    option("--seconds", type=float, default=5.0, metavar="S", help="window of one shape")
    option("--warm-up", type=float, default=1.0, metavar="S", help="load before each window")
    option("--encoding", choices=("base64", "float"), default="base64", help="of the vectors")
    option("--json", action="store_true", help="a line of JSON for each shape, for programs")


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if any answer was an error or wrong. Raises `SetupError`."""
    if not (0 < args.seconds <= LONGEST and 0 <= args.warm_up <= LONGEST):
        raise CardsError(f"bench: --seconds and --warm-up are at most {LONGEST}, and not below 0")
    try:
        names = args.shapes.split(",") if args.shapes else TASKS[args.task].shapes
        shapes = [shape_named(name) for name in names if name]
        shapes += [shape for name in args.sweeps.split(",") if name for shape in sweep_named(name)]
    except ValueError as error:
        raise CardsError(f"bench: {error}") from None
    target = _target(args)
    check, gives, per_text = _try(target, args)
    if not args.json:
        print(f"{target.model} at {target.url}: {gives}")
        print(_line(HEADINGS))
    bad = False
    for shape in shapes:
        figures = _measure(target, shape, check, args)
        figures["tokens_per_second"] *= figures.pop("usage_share") or per_text
        bad = bad or bool(figures["errors"] or figures["wrong"])
        if args.json:
            sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.flush()
        else:
            troubles = ", ".join(
                f"{count} x {what}"
                for kind in ("errors", "wrong")
                for what, count in figures[kind].items()
            )
            numbers = [f"{figures[name]:,.1f}" for name in FIGURES]
            print(_line((shape.name, *numbers, troubles or "none")), flush=True)
    return 1 if bad else 0


def _measure(
    target: Target, shape: Shape, check: Check, args: argparse.Namespace
) -> dict[str, Any]:
    # Each run has other texts. Those that the server has cached would measure its cache.
    task = TASKS[args.task]
    seed = f"{random.SystemRandom().random()}"
    figures = measure(
        target.host,
        target.port,
        shape,
        make_requests(shape, seed, target.head(task.path), _fields(target, args), task.ask),
        seconds=args.seconds,
        warm_up=args.warm_up,
        patience=PATIENCE_SECONDS,
        check=check,
    )
    return {"model": target.model, "shape": shape.name} | figures


def _target(args: argparse.Namespace) -> Target:
    url = url_of(args.url, "/v1")
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise CardsError(f"bench: --url must be like {DEFAULT_URL}/v1, not {url}")
    path = parts.path.rstrip("/").removesuffix(TASKS[args.task].path)
    key = key_of(args.api_key, args.url)
    target = Target(parts.hostname, parts.port or 80, path, key or "none", args.model or "")
    if target.model:
        return target
    status, body = target.ask("GET", f"{path}/models")
    if status == HTTPStatus.UNAUTHORIZED:
        raise ServerError(key_refused(url, sent=key is not None))
    try:
        models = orjson.loads(body)["data"]
        fit = [each for each in models if args.task in each.get("tasks", ())]
        return target._replace(model=(fit or models)[0]["id"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise ServerError(f"bench: {url}/models answered {status}; say --model") from None


def _fields(target: Target, args: argparse.Namespace) -> dict[str, Any]:
    """The fields of each request, beside the texts."""
    encoding = {"encoding_format": args.encoding} if args.task == "embed" else {}
    return {"model": target.model} | encoding


def _try(target: Target, args: argparse.Namespace) -> tuple[Check, str, float]:
    """How its answers are checked, what the server gives, in words, and how many tokens it counts
    for each of ours.

    Raises `ServerError` if the answer to a request is not what it should be.
    """
    task = TASKS[args.task]
    asked, tokens = task.ask(random.Random("try"), SHAPES["single"])
    body = _fields(target, args) | asked
    status, answer = target.ask("POST", f"{target.path}{task.path}", body)
    try:
        if status == HTTPStatus.UNAUTHORIZED:
            raise ServerError(key_refused(target.url, sent=target.key != "none"))
        if status != HTTPStatus.OK:
            raise WrongAnswer(f"{status}: {answer[:300].decode(errors='replace')}")
        if args.task == "rerank":
            check, gives = check_scores, "scores"
        else:
            dimensions = read_vectors(answer, 1)[0].shape[1]
            check, gives = check_vectors(dimensions), f"{dimensions} dimensions"
        counted = check(answer, 1).tokens
    except WrongAnswer as error:
        what = "score" if args.task == "rerank" else "vector"
        raise ServerError(f"bench: no {what} from the server: {error}") from None
    return check, gives, counted / tokens


def _line(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<12}" + "".join(f"{cell:>12}" for cell in cells[1:-1]) + f"  {cells[-1]}"
