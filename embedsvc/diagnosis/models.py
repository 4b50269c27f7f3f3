"""Findings about models: the cards, and the files of each. Nothing is downloaded or loaded."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.checkpoints.tensors import weight_files
from embedsvc.diagnosis.finding import Finding, note, ok, wrong
from embedsvc.errors import CardsError, CheckpointError
from embedsvc.inference.plan import make_plan
from embedsvc.texts.tokenizer import open_tokenizer

MAX_NAMED = 3
"""How many of the models that are to be downloaded are named."""


def models(file: Path | None) -> Iterator[Finding]:
    """The cards file that a server would read, and each of its cards."""
    try:
        cards = read_cards(find_cards_file(file))
    except CardsError as error:
        yield wrong("cards", error, 'docs/models.md, "Add a model", says what a card may hold')
        return
    yield ok("cards", f"{len(cards.by_id)} in {cards.file.absolute()}")
    absent: list[str] = []
    for card in cards.by_id.values():
        try:
            folder = find_checkpoint(card, download=False)
        except CheckpointError as error:
            if card.repo is None:
                yield wrong(card.id, error, "correct its `path` or `package`, or give it a `repo`")
            elif card.preload:
                yield note(card.id, "not here; downloaded when the server starts")
            else:
                absent.append(card.id)
            continue
        yield _checkpoint(card, folder)
    if absent:
        first, more = absent[:MAX_NAMED], len(absent) - MAX_NAMED
        others = f" and {more} more, which `embedsvc models` lists" if more > 0 else ""
        seen = f"{len(absent)}, each when it is first asked for: {', '.join(first)}{others}"
        yield note("to download", seen)


def _checkpoint(card: Card, folder: Path) -> Finding:
    """Whether the files are complete, as they should be, and of a kind that can be computed."""
    here = msgspec.structs.replace(card, path=folder)
    dtype: Dtype = card.dtype or "float32"
    try:
        checkpoint = open_checkpoint(here)
        plan = make_plan(checkpoint, dtype, packed=False)
        open_tokenizer(checkpoint, plan.rows)
        weights = sum(file.stat().st_size for file in weight_files(card.id, checkpoint.folder))
    except CheckpointError as error:
        hint = "remove the folder, and it is downloaded again" if card.repo else ""
        return wrong(card.id, error, hint)
    return ok(card.id, f"{checkpoint.model_type}, {weights / 1e6:.0f} MB of weights, in {folder}")
