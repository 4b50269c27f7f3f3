"""Cohere's route `/v2/embed`, for texts."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, cast
from uuid import uuid4

import msgspec
import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Truncate
from embedsvc.errors import EmptyInput, RequestError
from embedsvc.serving.embedded import Embedded
from embedsvc.texts.requests import (
    Choice,
    Dimensions,
    EmbeddingRequest,
    Fields,
    ModelName,
    each_once,
    read_inputs,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import Form, write_vectors
from embedsvc.web.dialects.dialect import Dialect
from embedsvc.web.embedding import answer_embeddings
from embedsvc.web.endpoint import Endpoint, read_body
from embedsvc.web.state import state_of

TRUNCATE: dict[str, Truncate] = {"NONE": "error", "END": "end", "START": "start"}
CUT = Rule("end", remedy='send "truncate": "END"')
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
FORMS: dict[EmbeddingType, Form] = {
    "float": ("float", "float"),
    "int8": ("int8", "float"),
    "uint8": ("uint8", "float"),
    "binary": ("binary", "float"),
    "ubinary": ("ubinary", "float"),
    "base64": ("float", "base64"),
}


class Content(msgspec.Struct):
    type: Literal["text"]
    text: str


class Item(msgspec.Struct):
    content: list[Content]


class CohereEmbedBody(msgspec.Struct):
    """`texts`, or `inputs` whose contents are texts. Images are not supported."""

    model: ModelName
    input_type: Choice | None = None
    texts: list[str] | None = None
    inputs: list[Item] | None = None
    output_dimension: Dimensions | None = None
    embedding_types: Annotated[list[EmbeddingType], Meta(max_length=len(FORMS))] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None


class ByType(msgspec.Struct, omit_defaults=True, rename={"floats": "float"}):
    floats: list[list[float]] | None = None
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class CohereEmbedAnswer(msgspec.Struct):
    id: str
    embeddings: ByType
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"]


class CohereError(msgspec.Struct):
    """Cohere's errors."""

    message: str


async def create_embeddings(request: Request) -> Response:
    """`POST /v2/embed`: vectors of texts, by type."""
    sent = await read_body(request, CohereEmbedBody)
    texts, field = _texts(sent, state_of(request).settings.max_inputs)
    asked = EmbeddingRequest(
        model=sent.model,
        inputs=texts,
        input_type=sent.input_type,
        dimensions=sent.output_dimension,
        truncate=None if sent.truncate is None else TRUNCATE[sent.truncate],
        otherwise=CUT,
        fields=Fields(field, "output_dimension"),
    )
    types = sent.embedding_types or ["float"]
    each_once("embedding_types", types)
    forms = [FORMS[each] for each in types]
    return await answer_embeddings(request, asked, partial(_write, texts, types), forms=forms)


routes = [
    Endpoint("POST", "/v2/embed", create_embeddings, body=CohereEmbedBody, answer=CohereEmbedAnswer)
]


def write_error(error: RequestError) -> CohereError:
    """An error as Cohere's clients read it."""
    return CohereError(error.message)


COHERE = Dialect("cohere", ("/v2", "/v1/embed"), CohereError, write_error)


def _texts(sent: CohereEmbedBody, max_inputs: int) -> tuple[list[str], str]:
    """The texts of a request, and the field they came in. Raises `BadRequest`."""
    inputs, field = sent.texts, "texts"
    if sent.inputs is not None:
        field = "inputs"
        inputs = ["\n".join(content.text for content in item.content) for item in sent.inputs]
    if inputs is None:
        raise EmptyInput("Please submit `texts`.")
    return cast("list[str]", read_inputs(inputs, max_inputs, field)), field


async def _write(
    texts: Sequence[str], types: Sequence[EmbeddingType], embedded: Embedded
) -> list[bytes]:
    pieces: list[bytes] = [b'{"id":"%b","embeddings":{' % str(uuid4()).encode()]
    for index, each in enumerate(types):
        pieces.append(b'%b"%b":' % (b"," if index else b"", each.encode()))
        pieces += await write_vectors(embedded.vectors, *FORMS[each])
    rest = {
        "texts": texts,
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": embedded.tokens},
        },
        "response_type": "embeddings_by_type",
    }
    pieces.append(b"},%b" % orjson.dumps(rest)[1:])
    return pieces
