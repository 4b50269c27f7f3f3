"""The wire format of reranking: one body, and one answer, for the clients of many servers.

Those of Cohere, Jina, vLLM, infinity and llama.cpp send `documents` and read an object; those of
text-embeddings-inference send `texts` and read a list.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from embedsvc.bounds import CHOICE, PROMPT_CHARACTERS, RANK_FIELDS
from embedsvc.texts.requests import ModelName
from embedsvc.web.dialects.openai_schema import Usage

Flag = bool | Literal["true", "false"]
"""True or false. Some clients send it as a string."""
Text = Annotated[
    str | dict[str, Any],
    Meta(
        description="A text; or an object with `text`, or with `content`, a list of such objects."
    ),
]
Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
Top = Annotated[int, Meta(ge=-1, lt=1 << 31)]
"""How many of the best; 0 and -1 are all, as vLLM's clients have it."""
Side = Literal["Left", "Right", "left", "right"]
LongPair = bool | Literal["error", "end", "start", "NONE", "END", "START"]
"""What becomes of a pair that is too long; true is `end`."""


class RerankBody(msgspec.Struct, kw_only=True):
    """A query, and `documents` or `texts`. Unknown fields are ignored; null counts as absent."""

    query: Text
    documents: Annotated[Text | list[Text] | None, Meta(description="What is ranked.")] = None
    texts: Annotated[
        list[str] | None, Meta(description="The same for the clients of TEI, who read a list.")
    ] = None
    model: Annotated[
        ModelName | None, Meta(description="Default: the first model that reranks.")
    ] = None
    top_n: Annotated[Top | None, Meta(description="So many of the best; 0 and -1 are all.")] = None
    top_k: Annotated[Top | None, Meta(description="Another name for `top_n`.")] = None
    return_documents: Annotated[
        Flag | None, Meta(description="Whether results have their documents.")
    ] = None
    return_text: Annotated[Flag | None, Meta(description="The same for `texts`.")] = None
    raw_scores: Annotated[
        Flag | None, Meta(description="The model's own output, not brought to 0 to 1.")
    ] = None
    use_activation: Annotated[Flag | None, Meta(description="False is `raw_scores`.")] = None
    rank_fields: (
        Annotated[
            list[Annotated[str, Meta(max_length=CHOICE)]],
            Meta(max_length=RANK_FIELDS, description="The fields that are read of documents."),
        ]
        | None
    ) = None
    max_tokens_per_doc: Annotated[
        Count | None, Meta(description="Longer documents are cut to so many; 0 is no limit.")
    ] = None
    max_tokens_per_query: Annotated[Count | None, Meta(description="The same of the query.")] = None
    truncate: Annotated[
        LongPair | None, Meta(description="What to do with pairs that are too long.")
    ] = None
    truncation_direction: Annotated[Side | None, Meta(description="`Left` cuts the start.")] = None
    truncation_side: Annotated[Side | None, Meta(description="The same.")] = None
    instruction: (
        Annotated[
            str,
            Meta(
                max_length=PROMPT_CHARACTERS,
                description="What to judge by, of a model that takes instructions.",
            ),
        ]
        | None
    ) = None


class RerankResult(msgspec.Struct):
    index: int
    relevance_score: float
    document: dict[str, Any] | str | msgspec.UnsetType = msgspec.UNSET


class RerankTokens(msgspec.Struct):
    input_tokens: int
    output_tokens: int


class RerankMeta(msgspec.Struct):
    api_version: dict[str, str]
    billed_units: dict[str, int]
    tokens: RerankTokens


class RerankAnswer(msgspec.Struct):
    """The documents, best first. `tokens` and `meta` are there for clients that count by them."""

    id: str
    object: Literal["rerank"]
    created: int
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: RerankMeta
    tokens: RerankTokens


class TeiRank(msgspec.Struct):
    """One of the texts, best first, as text-embeddings-inference answers."""

    index: int
    score: float
    text: str | msgspec.UnsetType = msgspec.UNSET


def is_true(flag: Flag | None) -> bool:
    """Whether a flag was sent, and is true.

    >>> [is_true(flag) for flag in (True, "true", "false", None)]
    [True, True, False, False]
    """
    return flag is True or flag == "true"


def is_false(flag: Flag | None) -> bool:
    """Whether a flag was sent, and is false."""
    return flag is False or flag == "false"
