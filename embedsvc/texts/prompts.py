"""Chooses the prompt, the text that goes before each input of a request.

Models that were trained with prompts tell queries from documents by them. Checkpoints have
different names for theirs, so the usual names of a kind stand for each other.
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
"""Kinds of prompts, and their usual names. These may be asked for of every model: one without such
a prompt adds nothing."""
SYNONYMS = {name: names for names in KINDS for name in names}


def split_name(
    name: str, cards: Cards, prompts_of: Callable[[Card], Prompts]
) -> tuple[Card, str | None] | None:
    """The card that a request names, and the prompt in that name: "e5:query" is `e5` with its
    `query`.

    A name that is written exactly as in the cards file goes before one that is spelled in another
    way (see `catalog.names`). Returns None if there is no such card.

    >>> from pathlib import Path
    >>> e5 = Card(id="e5", path=Path("/e5"))
    >>> cards = Cards(Path("models.toml"), {"e5": e5}, {"e5": e5})
    >>> split_name("e5:query", cards, lambda card: {}) == (e5, "query")
    True
    >>> split_name("e5", cards, lambda card: {}) == (e5, None)
    True
    """
    card = cards.by_name.get(name)
    if card is not None:
        return card, card.prompt_aliases.get(name)
    model, _, prompt = name.rpartition(":")
    card = cards.by_name.get(model)
    if card is None or model in card.prompt_aliases:
        return _respelled(name, cards, prompts_of)
    known = prompt in SYNONYMS or prompt in prompts_of(card)
    return (card, prompt) if known else _respelled(name, cards, prompts_of)


def _respelled(
    name: str, cards: Cards, prompts_of: Callable[[Card], Prompts]
) -> tuple[Card, str | None] | None:
    """What `split_name` returns of a name that is spelled in another way than in the cards file."""
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
    """The name of a prompt that may be asked for, as it is written; `name` may be in another
    case."""
    name = name.strip().lower()
    return next((known for known in (*prompts, *SYNONYMS) if known.lower() == name), None)


def choose(
    prompts: Prompts, request: EmbeddingRequest, from_model: str | None, default: str = ""
) -> str:
    """The prompt that a request asks for; the model's `default` if it asks for none.

    `from_model` is the name of a prompt that is part of the model's name. Raises `BadRequest`.

    >>> choose({"query": "query: "}, EmbeddingRequest(model="e5", inputs=["hi"]), "search_query")
    'query: '
    """
    prompt = _chosen(prompts, request, from_model, default)
    if len(prompt) > PROMPT_CHARACTERS:
        raise BadRequest(
            f"Invalid 'prompt': a prompt may have {PROMPT_CHARACTERS} characters, and this one has "
            f"{len(prompt)}."
        )
    return prompt


def is_query(request: EmbeddingRequest, from_model: str | None) -> bool | None:
    """Whether the inputs of a request are queries, or documents; None if it does not say it.

    >>> is_query(EmbeddingRequest(model="m", inputs=["hi"], input_type="search_document"), None)
    False
    """
    named = (request.prompt_name, request.input_type, from_model)
    asked = next((name for name in named if name is not None), None)
    return None if asked not in (*KINDS[0], *KINDS[1]) else asked in KINDS[0]


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
    """The prompt of that name, or of a name that stands for it. Raises `BadRequest`."""
    for known in (name, *SYNONYMS.get(name, ())):
        if known in prompts:
            return prompts[known]
    if name in SYNONYMS:
        return ""
    names = sorted(SYNONYMS.keys() | prompts.keys())
    raise BadRequest(f"Invalid value for '{field}' = {shown(name)}. Supported values: {names}.")
