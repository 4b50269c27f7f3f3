"""Which text goes before an input: none, unless the client asks for one.

Models trained with prompts tell queries from documents by them. Checkpoints name theirs in
different ways, so the usual names of either kind stand for each other.
"""

from collections.abc import Callable

from embedsvc.bounds import PROMPT_CHARACTERS
from embedsvc.catalog.cards import Card, Cards, Prompts
from embedsvc.catalog.names import spelled
from embedsvc.errors import BadRequest
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.wording.plain import shown

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
    """The card of a model's name, and the prompt in it: "e5:query" is `e5` with its `query`.

    What is written exactly as in the cards file goes before what is only meant (see `names`).
    """
    card = cards.by_name.get(name)
    if card is not None:
        return card, card.prompt_aliases.get(name)
    model, _, prompt = name.rpartition(":")
    card = cards.by_name.get(model)
    if card is None or model in card.prompt_aliases:
        return _meant(name, cards, prompts_of)
    known = prompt in SAME or prompt in prompts_of(card)
    return (card, prompt) if known else _meant(name, cards, prompts_of)


def _meant(
    name: str, cards: Cards, prompts_of: Callable[[Card], Prompts]
) -> tuple[Card, str | None] | None:
    """The same for what is written in another way than in the cards file."""
    found = cards.find(name)
    if found is not None:
        return found
    model, _, prompt = spelled(name).rpartition(":")
    found = cards.find(model) if model else None
    if found is None or found[1] is not None:
        return None
    known = _prompt(prompt, prompts_of(found[0]))
    return None if known is None else (found[0], known)


def _prompt(name: str, prompts: Prompts) -> str | None:
    """The prompt of that name that may be asked for, in whatever case."""
    name = name.strip().lower()
    return next((known for known in (*prompts, *SAME) if known.lower() == name), None)


def choose(
    prompts: Prompts, request: EmbeddingRequest, from_model: str | None, default: str = ""
) -> str:
    """The text that a request wants before its inputs, the model's `default` if it says none.

    `from_model` is the prompt that the name of its model names. Raises `BadRequest`.
    """
    prompt = _chosen(prompts, request, from_model, default)
    if len(prompt) > PROMPT_CHARACTERS:
        raise BadRequest(
            f"Invalid 'prompt': a prompt may have {PROMPT_CHARACTERS} characters, and this one has "
            f"{len(prompt)}."
        )
    return prompt


def _chosen(
    prompts: Prompts, request: EmbeddingRequest, from_model: str | None, default: str
) -> str:
    if request.prompt is not None:
        return request.prompt
    if request.prompt_name is not None:
        return _named(prompts, "prompt_name", request.prompt_name)
    if request.input_type is not None:
        return _named(prompts, "input_type", request.input_type)
    return default if from_model is None else _named(prompts, "model", from_model)


def _named(prompts: Prompts, field: str, name: str) -> str:
    for known in (name, *SAME.get(name, ())):
        if known in prompts:
            return prompts[known]
    if name in SAME:
        return ""
    names = sorted(SAME.keys() | prompts.keys())
    raise BadRequest(f"Invalid value for '{field}' = {shown(name)}. Supported values: {names}.")
