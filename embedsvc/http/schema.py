"""The wire format of OpenAI's embeddings API, and how its requests are read.

Wording of the refusals is OpenAI's own, because clients match on it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from embedsvc.bounds import CHUNKS
from embedsvc.cards import Truncate
from embedsvc.errors import BadRequest
from embedsvc.quantize import DTYPES, Dtype
from embedsvc.texts.requests import (
    MAX_INPUTS,
    Chunking,
    EmbeddingRequest,
    EncodingFormat,
    Int32,
    Offsets,
    each_once,
    read_inputs,
    read_truncate,
)
from embedsvc.texts.truncation import OPENAI
from embedsvc.wording import plain_types


class EmbeddingBody(msgspec.Struct):
    """The JSON object as sent. Unknown fields are ignored, null is as good as absent."""

    model: Annotated[str, Meta(min_length=1, description="Id, alias, or id:prompt of a model.")]
    input: Annotated[
        str | list[str | int | list[int]],
        Meta(description="A text, or texts; or the same in token ids of cl100k_base."),
    ]
    encoding_format: EncodingFormat | None = None
    dimensions: int | None = None
    user: Annotated[Any, Meta(description="Ignored.")] = None
    input_type: Annotated[str | None, Meta(description="query, document, passage, ...")] = None
    prompt_name: Annotated[str | None, Meta(description="One of the model's prompts.")] = None
    prompt: Annotated[str | None, Meta(description="A text to put before each input.")] = None
    truncate: Annotated[
        Truncate | bool | None, Meta(description="What to do with inputs that are too long.")
    ] = None
    chunks: Annotated[
        list[list[int | list[int]]] | None,
        Meta(description="Late chunking: [start, end] of each chunk, in characters."),
    ] = None
    chunking: Chunking | None = None
    output_dtype: Dtype | None = None
    embedding_types: Annotated[list[Dtype], Meta(max_length=len(DTYPES))] | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class ChunkRow(msgspec.Struct):
    """With late chunking, what a row is the vector of."""

    input: int
    start: int
    end: int
    tokens: int


class EmbeddingRow(msgspec.Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str | dict[str, list[float] | str]
    chunk: ChunkRow | msgspec.UnsetType = msgspec.UNSET


class EmbeddingAnswer(msgspec.Struct):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class Model(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The id that this is, or is another name for."""
    state: str
    dimensions: int | None
    max_tokens: int | None
    architecture: str | None
    pooling: str | None
    prompts: dict[str, str]
    fingerprint: str | None


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[Model]


def read_request(
    body: bytes, *, model: str | None = None, max_inputs: int = MAX_INPUTS
) -> EmbeddingRequest:
    """The request in a body, for `model` where the path names it.

    Raises `BadRequest`; the model is looked at before the input.
    """
    try:
        sent = msgspec.json.decode(body, type=EmbeddingBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        sent = _second_look(body, model)
    each_once("embedding_types", sent.embedding_types or ())
    inputs = read_inputs(sent.input, max_inputs)
    return EmbeddingRequest(
        model=model or sent.model,
        inputs=inputs,
        encoding_format=sent.encoding_format or "float",
        dimensions=sent.dimensions,
        input_type=sent.input_type,
        prompt_name=sent.prompt_name,
        prompt=sent.prompt,
        truncate=read_truncate(sent.truncate),
        otherwise=OPENAI,
        chunks=_chunks(sent, len(inputs)),
        dtypes=sent.output_dtype or sent.embedding_types or "float",
    )


def not_json() -> NoReturn:
    """Refuse a body that is no JSON object."""
    raise BadRequest(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
        "using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was "
        "sent was not valid JSON.)"
    )


def _second_look(body: bytes, model: str | None) -> EmbeddingBody:
    """What is wrong with a body that is no `EmbeddingBody`, in OpenAI's order and words.

    Only the model may be absent, where the path names it.
    """
    try:
        sent = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        not_json()
    sent = {name: value for name, value in sent.items() if value is not None}
    if model is not None:
        sent["model"] = model
    if not isinstance(sent.get("model", ""), str):
        not_json()
    if not sent.get("model"):
        raise BadRequest("you must provide a model parameter")
    if "input" not in sent:
        raise BadRequest("Please submit an `input`.")
    try:
        return msgspec.convert(sent, EmbeddingBody)
    except msgspec.ValidationError as error:
        raise _wrong_field(sent, str(error)) from None


def _wrong_field(sent: dict[str, Any], said: str) -> BadRequest:
    message, _, path = plain_types(said).partition(" - at `$.")
    field = path.rstrip("`").partition(".")[0].partition("[")[0]
    value = sent.get(field)
    if field == "input":
        return BadRequest("Invalid 'input': expected a string or token array.")
    if field == "dimensions":
        return BadRequest(f"{value!r} is not of type 'integer' - 'dimensions'")
    supported: dict[str, Sequence[str]] = {
        "encoding_format": ("float", "base64"),
        "output_dtype": DTYPES,
        "truncate": ("error", "end", "start", "chunk"),
    }
    if field in supported:
        return BadRequest(
            f"Invalid value for '{field}' = {value}. Supported values: {list(supported[field])}."
        )
    return BadRequest(f"Invalid '{path.rstrip('`')}': {message}.")


def _chunks(
    sent: EmbeddingBody, inputs: int
) -> Chunking | Sequence[Sequence[Offsets]] | None:  # fmt: skip
    """Chunks of each input: of an input that is not in a list, they are not in one either."""
    if sent.chunks is None:
        return sent.chunking
    if sent.chunking is not None:
        raise BadRequest("Invalid 'chunks': give either `chunks` or `chunking`.")
    try:
        one = isinstance(sent.input, str) or isinstance(sent.input[0], int)
        kind = list[tuple[Int32, Int32]] if one else list[list[tuple[Int32, Int32]]]
        found: Any = msgspec.convert(sent.chunks, kind)
    except msgspec.ValidationError:
        raise BadRequest(
            "Invalid 'chunks': expected [start, end] of each chunk, in a list for each input."
        ) from None
    chunks: list[list[Offsets]] = [found] if one else found
    total = sum(map(len, chunks))
    if total > CHUNKS:
        raise BadRequest(f"Invalid 'chunks': they are {total}, and {CHUNKS} at most.")
    if len(chunks) != inputs or not all(chunks):
        raise BadRequest(
            f"Invalid 'chunks': expected one or more chunks for each of {inputs} inputs."
        )
    return chunks
