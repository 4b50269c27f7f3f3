"""What a request asks for, whatever dialect it came in."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from embedsvc.bounds import CHOICE, DIMENSIONS, MODEL_NAME, TEXT_CHARACTERS
from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, EmptyInput
from embedsvc.texts.truncation import Rule

Dtype = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""Types of a vector's components that may be asked for; see `serving.quantize`."""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

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
Int32 = Annotated[int, Meta(ge=-1 << 31, lt=1 << 31)]
Offsets = tuple[int, int]
"""A chunk by its first character and the one after its last, in Unicode code points."""


class Chunking(msgspec.Struct, frozen=True):
    """Late chunking into chunks of `size` tokens, sharing `overlap` with the one before."""

    size: Annotated[int, Meta(ge=1, lt=1 << 31)]
    overlap: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0


class Fields(msgspec.Struct, frozen=True):
    """What a dialect calls fields that errors name."""

    input: str = "input"
    dimensions: str = "dimensions"


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for vectors."""

    model: str
    inputs: Inputs
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    truncate: Truncate | None = None
    otherwise: Rule = Rule()
    """What the servers do with a text that is too long that the request's dialect comes from: what
    is done here if neither request, card nor setting says."""
    chunks: Chunking | Sequence[Sequence[Offsets]] | None = None
    dtypes: Sequence[Dtype] | Dtype = "float"
    """Several: each row has its vector in each of them, by name."""
    fields: Fields = Fields()


def read_inputs(value: Any, max_inputs: int = MAX_INPUTS, field: str = "input") -> Inputs:
    """One input or several: strings, or lists of token ids. Raises `BadRequest`."""
    if isinstance(value, str):
        if not value:
            raise EmptyInput(f"Invalid '{field}': input cannot be an empty string.")
        return [value]
    if not value:
        raise EmptyInput(f"Invalid '{field}': input cannot be an empty array.")
    items: list[object] = value
    kind = type(items[0])
    most = TEXT_CHARACTERS if kind is int else max_inputs
    if len(value) > most:  # before each of them is looked at
        raise BadRequest(f"Invalid '{field}': array length must be {most} or less.")
    if len(set(map(type, items))) > 1:
        index, other = next(
            (i, type(item)) for i, item in enumerate(items) if type(item) is not kind
        )
        said = f"expected {KINDS[kind]} as the first is, not {KINDS[other]}"
        raise BadRequest(f"Invalid '{field}[{index}]': {said}.")
    if kind is int:
        return [value]
    empty: Any = "" if kind is str else []
    if empty in value:
        said = "string" if kind is str else "array"
        where = f"{field}[{value.index(empty)}]"
        raise EmptyInput(f"Invalid '{where}': input cannot be an empty {said}.")
    return value


def each_once(field: str, values: Sequence[Any]) -> None:
    """Raises `BadRequest` if one of the values is there twice."""
    if len(set(values)) < len(values):
        raise BadRequest(f"Invalid '{field}': expected each type once.")


def read_truncate(value: Truncate | bool | None) -> Truncate | None:
    """Whether to truncate, as some clients say it, in our words."""
    if isinstance(value, bool):
        return "end" if value else "error"
    return value
