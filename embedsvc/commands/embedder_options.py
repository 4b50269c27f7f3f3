"""Options that commands share which embed texts: what computes the vectors, and of what kind."""

import argparse
import asyncio
import os
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from embedsvc.bulk.embedder import Embedder
from embedsvc.bulk.local import Local, open_local
from embedsvc.bulk.rank import Ranker
from embedsvc.bulk.remote import Remote, open_remote
from embedsvc.commands.address import DEFAULT_URL, KEY_HELP, key_of, url_of
from embedsvc.commands.cards import cards_of
from embedsvc.commands.model_options import card_and_prompt_named
from embedsvc.commands.settings import setting_help
from embedsvc.errors import CardsError
from embedsvc.settings import BackendChoice, read_settings
from embedsvc.system.loop import new_event_loop
from embedsvc.system.text_files import printable
from embedsvc.texts.prompts import SYNONYMS

CALLS, MOST_CALLS = 4, 1024
SEVERAL = ("files", "texts")
"""Arguments that are lists."""
LOCAL = ("models", "backend")
"""Settings of the server that are options here, and may come from the environment, too."""
Group = argparse._ArgumentGroup  # pyright: ignore[reportPrivateUsage] - it has no other name
T = TypeVar("T")


def add_source(parser: argparse.ArgumentParser, first: str = "the first card") -> None:
    """Add the options that say which model and where it runs. `first` is the default, in words."""
    group = parser.add_argument_group("the model")
    option = group.add_argument
    option("--model", metavar="M", help=f"id or alias of a card, or a folder; default: {first}")
    option("--models", type=Path, metavar="PATH", help=setting_help("models"))
    option("--backend", choices=get_args(BackendChoice), help="what computes; default: auto")
    option(
        "--url",
        metavar="URL",
        help=f"a running server, like {DEFAULT_URL}/v1; default: this process, and no server",
    )
    option("--api-key", metavar="KEY", help=KEY_HELP)
    option(
        "--parallel",
        type=int,
        default=CALLS,
        metavar="N",
        help=f"requests in flight to it; default: {CALLS}",
    )


def add_vectors(parser: argparse.ArgumentParser) -> Group:
    """Add the options that say which vectors to make. Returns their group, for more options."""
    group = parser.add_argument_group("the vectors")
    group.add_argument(
        "--input-type",
        metavar="TYPE",
        help=f"{', '.join(SYNONYMS)}: the model's prompt; default: none",
    )
    group.add_argument("--prompt", help="a text to put before each, instead; default: none")
    group.add_argument(
        "--dimensions", type=int, metavar="N", help="fewer, of a Matryoshka model; default: all"
    )
    return group


def check_arguments(args: argparse.Namespace) -> None:
    """Raises `CardsError` if an argument, other than the name of a file, is no text."""
    for name, value in vars(args).items():
        several = isinstance(value, list)
        texts = cast("list[Any]", value) if several else [value]
        if several and name not in SEVERAL:  # argparse makes a list of `--option=--`
            option = f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
            raise CardsError(f"{option} cannot be --")
        for text in texts:
            if name != "files" and isinstance(text, str) and not _is_utf8(text):
                raise CardsError(f"{printable(text)}: not UTF-8, as an argument must be")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def open_source(
    args: argparse.Namespace, model: str | None = None
) -> AbstractAsyncContextManager[Embedder]:
    """The embedder that the options name. `model` is the default. Raises `SetupError`."""
    return _open(args, args.model or model)


def open_ranker(
    args: argparse.Namespace, model: str | None
) -> AbstractAsyncContextManager[Ranker]:  # fmt: skip
    """The model that reranks: the one of that name, else the first that is for it.

    Raises `SetupError`.
    """
    if model is None and args.url is not None:
        return _open(args, "")
    if model is None:
        cards = cards_of(args.models).by_id.values()
        model = next((card.id for card in cards if card.task == "rerank"), None)
    return _open(args, model)


def _open(
    args: argparse.Namespace, model: str | None
) -> AbstractAsyncContextManager[Local | Remote]:  # fmt: skip
    """The model of that name, at the server or in this process. Raises `SetupError`."""
    kind = (model or "").rpartition(":")[2]
    if kind in SYNONYMS:
        raise CardsError(f"`{model}`: say the prompt by --input-type {kind}")
    if args.url is not None:
        if not 1 <= args.parallel <= MOST_CALLS:
            raise CardsError(
                f"--parallel must be at least 1 and at most {MOST_CALLS}, not {args.parallel}"
            )
        key = key_of(args.api_key, args.url) or "none"
        return open_remote(url_of(args.url, "/v1"), key, model, args.parallel)
    settings = read_settings({name: getattr(args, name) for name in LOCAL}, os.environ)
    card, kind = card_and_prompt_named(model, settings.models)
    if kind is not None:
        raise CardsError(f"`{model}`: is `{card.id}`, say the prompt by --input-type {kind}")
    return open_local(card, settings)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on an event loop like the server's."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
