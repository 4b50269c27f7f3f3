"""Errors as OpenAI's clients read them. Routes that are no other dialect's answer them, too."""

import msgspec

from embedsvc.errors import (
    InstanceNotFound,
    ModelNotFound,
    Overloaded,
    RequestError,
    TooManyBytes,
    TooManyTokens,
    Unauthorized,
)
from embedsvc.web.dialects.dialect import Dialect

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
"""OpenAI's `code` of an error. Other errors have none."""


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct):
    """OpenAI's errors, and those of all routes that are no other dialect's."""

    error: ErrorBody


def write_error(error: RequestError) -> ErrorAnswer:
    by_status = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = OPENAI_TYPES.get(type(error), by_status)
    code = OPENAI_CODES.get(type(error))
    if isinstance(error, Unauthorized) and error.key_sent:
        code = "invalid_api_key"
    return ErrorAnswer(ErrorBody(error.message, kind, error.field, code))


OPENAI = Dialect("openai", (), ErrorAnswer, write_error)
"""The dialect of every path that is not another's."""
