"""Which text goes before an input: none, unless the client asks for one.

Models trained with prompts tell queries from documents by them. Checkpoints name theirs in
different ways, so the usual names of either kind stand for each other.
"""

from collections.abc import Callable

from embedsvc.cards import Card, Cards, Prompts
from embedsvc.errors import BadRequest
from embedsvc.texts.requests import EmbeddingRequest

KINDS = (
    ("query", "search_query"),
    ("document", "passage", "search_document"),
    ("classification",),
    ("clustering",),
)
"""Names that may always be asked for: a model without such a prompt adds nothing."""
SAME = {name: names for names in KINDS for name in names}


def split_name(
    name: str, cards: Cards, prompts_of: Callable[[Card], Prompts]
) -> tuple[Card, str | None] | None:
    """The card of a model's name, and the prompt in it: "e5:query" is `e5` with its `query`."""
    card = cards.by_name.get(name)
    if card is not None:
        return card, card.prompt_aliases.get(name)
    model, _, prompt = name.rpartition(":")
    card = cards.by_name.get(model)
    if card is None or model in card.prompt_aliases:
        return None
    known = prompt in SAME or prompt in prompts_of(card)
    return (card, prompt) if known else None


def choose(prompts: Prompts, request: EmbeddingRequest, from_model: str | None) -> str:
    """The text that a request wants before its inputs.

    `from_model` is the prompt that the name of its model names. Raises `BadRequest`.
    """
    if request.prompt is not None:
        return request.prompt
    if request.prompt_name is not None:
        return _named(prompts, "prompt_name", request.prompt_name)
    if request.input_type is not None:
        return _named(prompts, "input_type", request.input_type)
    return "" if from_model is None else _named(prompts, "model", from_model)


def _named(prompts: Prompts, field: str, name: str) -> str:
    for known in (name, *SAME.get(name, ())):
        if known in prompts:
            return prompts[known]
    if name in SAME:
        return ""
    names = sorted(SAME.keys() | prompts.keys())
    raise BadRequest(f"Invalid value for '{field}' = {name}. Supported values: {names}.")
