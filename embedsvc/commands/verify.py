"""`embedsvc verify MODEL`: whether a model computes what it should on this machine."""

import argparse
import sys
from typing import get_args

import msgspec

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.catalog.cards_file import card_like
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.sources import is_here
from embedsvc.commands.cards import cards_of
from embedsvc.commands.model_options import add_model, card_named, on_device, open_model
from embedsvc.diagnosis.verify import Check, verify
from embedsvc.diagnosis.verify_scores import verify_scores
from embedsvc.diagnosis.verify_tokens import verify_tokens
from embedsvc.inference.ops.base import Ops

EXAMPLES = """\
  embedsvc verify all-MiniLM-L6-v2
  embedsvc verify ./my-model --backend numpy
  embedsvc verify bge-m3 --json
  embedsvc verify ms-marco-MiniLM-L6-v2
  embedsvc verify bge-small-en-v1.5 --dtype int8
  embedsvc verify ./minilm-4bit --original all-MiniLM-L6-v2

The exit code is 1 if something is wrong.
"""

MARKS = {True: "ok", False: "WRONG", None: "-"}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    parser.add_argument(
        "--json", action="store_true", help="a line of JSON for each check, for programs"
    )
    parser.add_argument(
        "--original",
        metavar="MODEL",
        help="what a quantised model was made from, to tell what that costs; default: what its "
        "card is `like`, if that is on this disk",
    )
    parser.add_argument("--dtype", choices=get_args(Dtype), help="in which; default: the card's")


def run(args: argparse.Namespace) -> int:
    """Print each check, then the verdict. Returns 1 if a check failed. Raises `SetupError`."""
    card = card_named(args.model, args.models)
    if args.dtype:
        card = msgspec.structs.replace(card, dtype=args.dtype)
    checkpoint = open_model(card)
    checked_by = verify if checkpoint.scoring is None else verify_scores
    if checkpoint.late is not None and not checkpoint.pooling:
        checked_by = verify_tokens
    original = _original(args, card)
    if not args.json:
        print(f"{card.id}: {checkpoint.root}")

    def check_all(ops: Ops) -> list[Check]:
        checks: list[Check] = []
        for check in checked_by(ops, checkpoint, original):
            print(_as_json(check) if args.json else _in_words(check), flush=True)
            checks.append(check)
        return checks

    checks = on_device(args.backend, checkpoint, check_all)
    if args.json:
        return 1 if any(check.passed is False for check in checks) else 0
    if any(check.passed is False for check in checks):
        print(f"{card.id} is WRONG on this machine", file=sys.stderr)
        return 1
    compared = all(check.passed for check in checks)
    print(f"{card.id} is right" if compared else f"{card.id} is sound; nothing to compare it with")
    return 0


def _original(args: argparse.Namespace, card: Card) -> Checkpoint | None:
    """What the model was made from, as somebody says or its card does. Raises `SetupError`."""
    if args.original:
        return open_model(card_named(args.original, args.models))
    like = card_like(card, cards_of(args.models))
    return open_model(like) if like is not None and is_here(like) else None


def _in_words(check: Check) -> str:
    return f"  {MARKS[check.passed]:6} {check.name}: {check.found}"


def _as_json(check: Check) -> str:
    told = {"check": check.name, "passed": check.passed, "found": check.found}
    return msgspec.json.encode(told).decode()
