"""An error in the shape that a dialect's own clients read: one writer for each dialect's errors.

Which dialect it is tells the path, also where nothing answers there, and before a route is found.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from embedsvc.errors import (
    EmptyInput,
    InstanceNotFound,
    ModelNotFound,
    NoTokens,
    Overloaded,
    RequestError,
    TooManyBytes,
    TooManyConnections,
    TooManyTokens,
    Unauthorized,
)

TeiErrorType = Literal["Backend", "Empty", "Overloaded", "Tokenizer", "Unhealthy", "Validation"]


OPENAI_TYPES: dict[type[RequestError], str] = {
    Overloaded: "tokens",
    TooManyBytes: "server_error",
    TooManyTokens: "max_tokens_per_request",
}
"""OpenAI's `type` of an error, where the status alone does not tell it."""
OPENAI_CODES: dict[type[RequestError], str] = {
    InstanceNotFound: "instance_not_found",
    ModelNotFound: "model_not_found",
    Overloaded: "rate_limit_exceeded",
    TooManyBytes: "rate_limit_exceeded",
    TooManyTokens: "max_tokens_per_request",
}
"""OpenAI's `code` of an error; others have none."""


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct):
    """OpenAI's errors, and those of all routes that are no other dialect's."""

    error: ErrorBody


class OllamaError(msgspec.Struct):
    """Ollama's errors."""

    error: str


class TeiError(msgspec.Struct):
    """The errors of text-embeddings-inference."""

    error: str
    error_type: TeiErrorType


class CohereError(msgspec.Struct):
    """Cohere's errors."""

    message: str


class Dialect(NamedTuple):
    """How errors look below some paths."""

    name: str
    paths: tuple[str, ...]
    """Its own, and what is below them."""
    answer: type[msgspec.Struct]
    write: Callable[[RequestError], msgspec.Struct]


def write_error(error: RequestError, path: str = "") -> bytes:
    """The body of a refusal, as the clients of a path read it; "" where none is known."""
    return msgspec.json.encode(dialect_of(path).write(error))


def dialect_of(path: str) -> Dialect:
    """Whose path it is, OpenAI's where it is nobody else's."""
    for dialect in DIALECTS:
        for base in dialect.paths:
            if path == base or path.startswith(f"{base}/"):
                return dialect
    return OPENAI


def _openai(error: RequestError) -> ErrorAnswer:
    by_status = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = OPENAI_TYPES.get(type(error), by_status)
    code = OPENAI_CODES.get(type(error))
    if isinstance(error, Unauthorized) and error.key_sent:
        code = "invalid_api_key"
    return ErrorAnswer(ErrorBody(error.message, kind, error.field, code))


def _ollama(error: RequestError) -> OllamaError:
    return OllamaError(error.message)


def _tei(error: RequestError) -> TeiError:
    kind: TeiErrorType
    if isinstance(error, Overloaded | TooManyBytes | TooManyConnections):
        kind = "Overloaded"
    elif isinstance(error, EmptyInput):
        kind = "Empty"
    elif isinstance(error, NoTokens):
        kind = "Tokenizer"
    elif error.status == 503:
        kind = "Unhealthy"
    else:
        kind = "Backend" if error.status >= 500 else "Validation"
    return TeiError(error.message, kind)


def _cohere(error: RequestError) -> CohereError:
    return CohereError(error.message)


OPENAI = Dialect("openai", (), ErrorAnswer, _openai)
DIALECTS = (
    Dialect("ollama", ("/api",), OllamaError, _ollama),
    # At `/` TEI's clients send texts, and Ollama's look whether the server is there: they find
    # what they read in TEI's errors too.
    Dialect(
        "tei",
        (
            "/",
            "/decode",
            "/embed",
            "/embed_all",
            "/embed_sparse",
            "/info",
            "/predict",
            "/rerank",
            "/similarity",
            "/tokenize",
        ),
        TeiError,
        _tei,
    ),
    Dialect("cohere", ("/v2", "/v1/embed"), CohereError, _cohere),
)
ALL: tuple[Dialect, ...] = (OPENAI, *DIALECTS)
