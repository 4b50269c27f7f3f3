"""Every error a person can see: over HTTP in OpenAI's shape, or on the command line as one line.

EmbedsvcError
├── RequestError          answered as {"error": {"message", "type", "param", "code"}}
│   ├── BadRequest        400  what was sent is wrong; the message names the field and the limit
│   ├── ModelNotFound     404  no card has this name
│   ├── Overloaded        429  the waiting line is full; Retry-After says when to come back
│   ├── EmbeddingFailed   500  the model failed on this input
│   └── Unavailable       503  the server is shutting down, or the model cannot be loaded
└── SetupError            the command ends with `exit_code`
    ├── CardsError        3    models.toml or a setting is wrong
    ├── CheckpointError   4    a model's files are missing, broken, or not what they should be
    ├── AddressError      5    the address or port cannot be had
    └── ServiceError      1    launchd or systemd did not do as told, or a file is in the way
"""

from typing import Literal

ErrorType = Literal["invalid_request_error", "tokens", "server_error"]


class EmbedsvcError(Exception):
    """The root of the tree."""


class RequestError(EmbedsvcError):
    """An error of one request, with what its HTTP answer needs."""

    status: int = 500
    type: ErrorType = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: dict[str, str] = {}


class BadRequest(RequestError):
    """What the client sent cannot be answered, now or later."""

    status = 400
    type = "invalid_request_error"


class ModelNotFound(RequestError):
    """No card has the requested name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, model: str, *, param: str | None = None) -> None:
        super().__init__(
            f"The model `{model}` does not exist or you do not have access to it.", param=param
        )


class Overloaded(RequestError):
    """The waiting line is full: `retry_after` seconds, 1 to 59, is when there should be room."""

    status = 429
    type = "tokens"
    code = "rate_limit_exceeded"

    def __init__(self, waiting_tokens: int, limit: int, retry_after: int) -> None:
        super().__init__(
            f"Rate limit reached: {waiting_tokens} tokens are waiting and the limit is {limit}. "
            f"Please try again in {retry_after}s."
        )
        # SDKs ignore or give up on longer waits: python caps at 120 s, node at 60 s.
        self.headers["Retry-After"] = str(retry_after)


class EmbeddingFailed(RequestError):
    """The model gave no usable vector for an input."""


class Unavailable(RequestError):
    """The server cannot answer now: it is stopping, or the model does not load."""

    status = 503


class SetupError(EmbedsvcError):
    """An error that ends the command: one line, and an exit code of its own."""

    exit_code = 1


class CardsError(SetupError):
    """A cards file or a setting is wrong; the message names file, card and key."""

    exit_code = 3


class CheckpointError(SetupError):
    """A model's files are missing, broken, or do not fit the card."""

    exit_code = 4


class AddressError(SetupError):
    """The address cannot be listened on."""

    exit_code = 5


class ServiceError(SetupError):
    """The service could not be installed, removed, started or stopped."""
