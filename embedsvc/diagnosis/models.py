"""Findings about models: the cards, and the files of each. Nothing is downloaded or loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.diagnosis.computing import smaller
from embedsvc.diagnosis.finding import Finding, note, ok, wrong
from embedsvc.errors import CardsError, CheckpointError
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.inference.plan import choose_dtype, make_plan
from embedsvc.texts.tokenizer import open_tokenizer
from embedsvc.wording.quantities import bytes_in_words

MAX_NAMED = 3
"""How many of the models that are to be downloaded are named."""


class Place(NamedTuple):
    """Where models would be loaded."""

    ops: Hardware
    asked: Dtype | None
    """The type of numbers that the server is set to."""
    memory: int
    """Bytes that all of them may take together."""


def models(file: Path | None, place: Place | None) -> Iterator[Finding]:
    """The cards file that a server would read, and each of its cards.

    `place` is None where nothing can be loaded.
    """
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
        yield _checkpoint(card, folder, place)
    if absent:
        first, more = absent[:MAX_NAMED], len(absent) - MAX_NAMED
        others = f" and {more} more, which `embedsvc models` lists" if more > 0 else ""
        seen = f"{len(absent)}, each when it is first asked for: {', '.join(first)}{others}"
        yield note("to download", seen)


def _checkpoint(card: Card, folder: Path, place: Place | None) -> Finding:
    """Whether the files are complete, as they should be, and of a kind that can be computed, and
    whether the weights have room."""
    here = msgspec.structs.replace(card, path=folder)
    backend = place.ops.name if place else "numpy"
    try:
        checkpoint = open_checkpoint(here)
        dtype = choose_dtype(checkpoint, place.ops, place.asked) if place else "float32"
        plan = make_plan(checkpoint, dtype, backend=backend)
        open_tokenizer(checkpoint, plan.rows)
        weights = sum(file.stat().st_size for file in weight_files(card.id, checkpoint.folder))
    except CheckpointError as error:
        hint = "remove the folder, and it is downloaded again" if card.repo else ""
        return wrong(card.id, error, hint)
    if place is not None and plan.size > place.memory:
        needed, there = bytes_in_words(plan.size), bytes_in_words(place.memory)
        seen = f"needs {needed}, and models may take {there} (--max-memory)"
        return wrong(card.id, seen, smaller(place.ops))
    return ok(card.id, f"{checkpoint.model_type}, {weights / 1e6:.0f} MB of weights, in {folder}")
