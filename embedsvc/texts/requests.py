"""What a request for vectors or for scores asks for, in whatever dialect it came."""

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from embedsvc.bounds import CHOICE, DIMENSIONS, MODEL_NAME, TEXT_CHARACTERS
from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, EmptyInput
from embedsvc.texts.truncation import PAIR_REMEDY, Rule

ComponentType = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""The types of a vector's components that a request may ask for; see `serving.quantize`."""
COMPONENT_TYPES: tuple[ComponentType, ...] = get_args(ComponentType)

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "sparse"]
"""What a request may ask for of each text: its vector in types of components, and a sparse one."""
EMBEDDING_TYPES: tuple[EmbeddingType, ...] = get_args(EmbeddingType)

MAX_INPUTS = 2048
EncodingFormat = Literal["float", "base64"]
Inputs = list[str] | list[list[int]]
KINDS: dict[type, str] = {str: "a string", int: "a token id", list: "a token array"}
ModelName = Annotated[
    str,
    Meta(min_length=1, max_length=MODEL_NAME, description="Id, alias, or id:prompt of a model."),
]
Choice = Annotated[str, Meta(max_length=CHOICE)]
Dimensions = Annotated[int, Meta(ge=1, le=DIMENSIONS)]
MaxActiveDims = Annotated[
    Annotated[int, Meta(ge=1, lt=1 << 31)] | None,
    Meta(description="The most weights of a sparse vector: the largest."),
]
MinWeight = Annotated[
    Annotated[float, Meta(ge=0)] | None,
    Meta(description="Weights of sparse vectors below this are left out."),
]
Int32 = Annotated[int, Meta(ge=-1 << 31, lt=1 << 31)]
Offsets = tuple[int, int]
"""A chunk: its first character and the one after its last, in Unicode code points."""


class Chunking(msgspec.Struct, frozen=True):
    """Late chunking into chunks of `size` tokens, each of which shares `overlap` tokens with the
    one before."""

    size: Annotated[int, Meta(ge=1, lt=1 << 31)]
    overlap: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0


class Fields(msgspec.Struct, frozen=True):
    """The names that a dialect has for the fields that errors name."""

    input: str = "input"
    dimensions: str = "dimensions"


class PairFields(msgspec.Struct, frozen=True):
    """The same for the fields of a request for scores."""

    query: str = "query"
    documents: str = "documents"


class ScoringRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for the scores of pairs of texts. What is None was not asked for."""

    model: str = ""
    """Empty: the default for what is asked."""
    query: str | Sequence[str | None] | None
    """The first text of every pair, or one for each of the documents. A document whose query is
    None is scored by itself, as classifiers of single texts do."""
    documents: Sequence[str]
    """The second texts."""
    instruction: str | None = None
    """What makes a document relevant, for models that take such an instruction."""
    max_tokens_per_query: int | None = None
    """The most tokens of a query that are read, without special tokens."""
    max_tokens_per_doc: int | None = None
    """The same of a document."""
    truncate: Truncate | None = None
    """What becomes of a pair that is too long: `error`, `end` or `start`."""
    otherwise: Rule = Rule("end", remedy=PAIR_REMEDY)
    """The same where neither request, card nor setting says it."""
    query_prompt: str | None = "query"
    """The prompt that a model of vectors puts before a query; None: the model's default."""
    document_prompt: str | None = "document"
    """The same for documents."""
    fields: PairFields = PairFields()

    @property
    def queries(self) -> list[str | None]:
        """The query of each document. Raises `BadRequest` if there is not one for each."""
        given = self.given_queries
        if len(given) not in (1, len(self.documents)):
            raise BadRequest(
                f"Invalid '{self.fields.query}': expected one text, or one for each of the "
                f"{len(self.documents)} texts in '{self.fields.documents}', not {len(given)}."
            )
        return given * (len(self.documents) // len(given))

    @property
    def given_queries(self) -> list[str | None]:
        """The queries as they were given: one, or one for each document."""
        return [self.query] if self.query is None or isinstance(self.query, str) else [*self.query]


class SparseOptions(msgspec.Struct, frozen=True):
    """The sparse vectors that a request asks for."""

    most: int | None = None
    """The most weights that a vector has: the largest; None: all."""
    least: float = 0.0
    """Weights below are left out."""


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for vectors. What is None was not asked for."""

    model: str
    inputs: Inputs
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    """The most tokens of an input that are read, prompt and special tokens not counted."""
    truncate: Truncate | None = None
    otherwise: Rule = Rule()
    """What becomes of a text that is too long where neither request, card nor setting says it: what
    the servers do that the request's dialect comes from."""
    chunks: Chunking | Sequence[Sequence[Offsets]] | None = None
    dtypes: Sequence[ComponentType] | ComponentType = "float"
    """If there are several, each row has its vector in each of these types, by name."""
    sparse: SparseOptions | None = None
    dense: bool = True
    """Whether vectors are asked for; without, only what else is."""
    fields: Fields = Fields()


def read_inputs(value: Any, max_inputs: int = MAX_INPUTS, field: str = "input") -> Inputs:
    """The inputs of a request: one or several, strings or lists of token ids. Raises `BadRequest`.

    >>> read_inputs("hello"), read_inputs([101, 102]), read_inputs(["a", "b"])
    (['hello'], [[101, 102]], ['a', 'b'])
    """
    if isinstance(value, str):
        if not value:
            raise EmptyInput(f"Invalid '{field}': input cannot be an empty string.")
        return [value]
    if not value:
        raise EmptyInput(f"Invalid '{field}': input cannot be an empty array.")
    items: list[object] = value
    kind = type(items[0])
    most = TEXT_CHARACTERS if kind is int else max_inputs
    if len(value) > most:  # is refused before each of them is looked at
        raise BadRequest(f"Invalid '{field}': array length must be {most} or less.")
    if len(set(map(type, items))) > 1:
        index, other = next(
            (i, type(item)) for i, item in enumerate(items) if type(item) is not kind
        )
        expected = f"expected {KINDS[kind]} as the first is, not {KINDS[other]}"
        raise BadRequest(f"Invalid '{field}[{index}]': {expected}.")
    if kind is int:
        return [value]
    empty: Any = "" if kind is str else []
    if empty in value:
        what = "string" if kind is str else "array"
        where = f"{field}[{value.index(empty)}]"
        raise EmptyInput(f"Invalid '{where}': input cannot be an empty {what}.")
    return value


def read_sparse(most: int | None, least: float | None) -> SparseOptions:
    """What is asked of sparse vectors. Raises `BadRequest`."""
    if least is not None and not isfinite(least):
        raise BadRequest("Invalid 'min_weight': expected a finite number.")
    return SparseOptions(most, least or 0.0)


def each_once(field: str, values: Sequence[Any]) -> None:
    """Raise `BadRequest` if one of the values is there twice."""
    if len(set(values)) < len(values):
        raise BadRequest(f"Invalid '{field}': expected each type once.")


def read_truncate(value: Truncate | bool | None) -> Truncate | None:
    """`truncate`, where some clients say true or false for `end` or `error`."""
    if isinstance(value, bool):
        return "end" if value else "error"
    return value
