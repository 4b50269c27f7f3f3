"""From texts to items for a late-interaction model, which reads queries and documents differently.

A query is expanded, as a rule by mask tokens, whose vectors look for what it does not say. Some
tokens have no vector of their own, as a document's punctuation. See `LateInteraction`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.late_interaction import LateInteraction
from embedsvc.errors import CheckpointError, NoTokens
from embedsvc.texts.inputs import Input, InputOptions, Tokenized, tokenize
from embedsvc.texts.item import Item
from embedsvc.texts.prompts import SYNONYMS
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer

Role = Literal["query", "document"]


def find_role(request: EmbeddingRequest, from_model: str | None) -> Role:
    """Whether the inputs of a request are queries, by the prompt that it names; else documents.

    `from_model` is the name of a prompt that is part of the model's name.

    >>> find_role(EmbeddingRequest(model="colbert", inputs=["a"], input_type="search_query"), None)
    'query'
    """
    named = (request.prompt_name, request.input_type, from_model)
    first = next((name for name in named if name is not None), None)
    return "query" if first in SYNONYMS["query"] else "document"


def open_roles(checkpoint: Checkpoint, tokenizer: Tokenizer) -> "RoleTokenizer":
    """What reads the texts of a late-interaction model. Raises `CheckpointError`."""
    if checkpoint.late is None:
        raise checkpoint.error("it is no late-interaction model")
    return RoleTokenizer(checkpoint.card.id, tokenizer, checkpoint.late)


class RoleTokenizer:
    """Tokenises the queries and documents of a late-interaction model. On any thread."""

    def __init__(self, model: str, tokenizer: Tokenizer, late: LateInteraction) -> None:
        """Raises `CheckpointError` if no token is there that queries are expanded by."""
        self._late = late
        self._by_role: dict[Role, Tokenizer] = {
            "query": tokenizer.limited(late.query_tokens),
            "document": tokenizer.limited(late.document_tokens),
        }
        ids = map(tokenizer.id_of, late.skipped)
        self._skipped = np.array([token for token in ids if token is not None], np.int32)
        self._expansion: int | None = None
        if late.expansion is not None:
            known = map(tokenizer.id_of, late.expansion.tokens)
            self._expansion = next((token for token in known if token is not None), None)
            if self._expansion is None:
                raise CheckpointError(
                    f"model `{model}`: its tokeniser has none of the tokens that queries are "
                    f"expanded by: {', '.join(late.expansion.tokens)}"
                )

    def tokenize(
        self, inputs: Sequence[Input], options: InputOptions, role: Role, *, half: bool = False
    ) -> Steps[Tokenized]:
        """The items of inputs, whose vectors are wanted in float16 if `half`. Raises what
        `texts.inputs.tokenize` does; texts are not split."""
        if options.rule.truncate == "chunk":
            rule = msgspec.structs.replace(options.rule, truncate="end")
            options = msgspec.structs.replace(options, rule=rule)
        tokenized = yield from tokenize(self._by_role[role], inputs, options)
        items = [self._item(item, role, half=half) for item in tokenized.items]
        for index, item in enumerate(items):
            if not item.count_kept():
                name = options.field if len(items) == 1 else f"{options.field}[{index}]"
                raise NoTokens(f"Invalid '{name}': none of its tokens has a vector.")
        return replace(tokenized, items=items)

    def _item(self, item: Item, role: Role, *, half: bool) -> Item:
        ids, unseen, expansion = item.ids, 0, self._late.expansion
        if role == "query" and expansion is not None and len(ids) < expansion.length:
            added = np.full(expansion.length - len(ids), self._expansion, np.int32)
            ids = np.concatenate([ids, added])
            unseen = 0 if expansion.attended else len(added)
        kept = None
        if role in self._late.skipped_in and len(self._skipped):
            skipped = np.isin(ids, self._skipped)
            kept = ~skipped if skipped.any() else None
        return Item(ids, unseen=unseen, kept=kept, half=half)
