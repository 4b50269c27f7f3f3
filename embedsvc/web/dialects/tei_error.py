"""Errors as the clients of Hugging Face's text-embeddings-inference (TEI) read them."""

from typing import Literal

import msgspec

from embedsvc.errors import (
    EmptyInput,
    NoTokens,
    Overloaded,
    RequestError,
    TooManyBytes,
    TooManyConnections,
)
from embedsvc.web.dialects.dialect import Dialect

TeiErrorType = Literal["Backend", "Empty", "Overloaded", "Tokenizer", "Unhealthy", "Validation"]


class TeiError(msgspec.Struct):
    """The errors of text-embeddings-inference."""

    error: str
    error_type: TeiErrorType


def write_error(error: RequestError) -> TeiError:
    """An error as TEI's clients read it."""
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


TEI = Dialect(
    "tei",
    (
        "/",  # Ollama's clients look here whether the server is there, and read TEI's errors, too
        "/decode",
        "/embed",
        "/embed_all",
        "/embed_sparse",
        "/info",
        "/predict",
        "/similarity",
        "/tokenize",
    ),
    TeiError,
    write_error,
)
