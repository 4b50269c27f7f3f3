"""Every error a person can see: over HTTP in its dialect's shape, or on the command line as a line.

EmbedsvcError
├── RequestError          answered as `http.refusals` writes it for the dialect of the route
│   ├── BadRequest        400  what was sent is wrong; the message names the field and the limit
│   │   ├── EmptyInput    400  there is no input, or one of them is empty
│   │   ├── NoTokens      400  the model has no token for an input
│   │   └── TooManyTokens 400  all inputs of a request together are too long
│   ├── Unauthorized      401  the server has keys, and none of them was sent
│   ├── Forbidden         403  a foreign web page, or another host's name, on a server without keys
│   ├── ModelNotFound     404  no card has this name
│   ├── InstanceNotFound  404  no instance has this id
│   ├── NoRoute      404, 405  nothing answers at this path, or not to this method
│   ├── BodyTooLarge      413  the request's body has too many bytes
│   ├── UnsupportedBody   415  its encoding or charset is none that the server reads
│   ├── TimedOut          408  the client took too long over its request
│   ├── HeadTooLarge      431  the request's line and headers have too many bytes
│   ├── ClientGone        499  the client hung up before the answer
│   ├── Overloaded        429  the waiting line is full; Retry-After says when to come back
│   ├── TooManyBytes      429  the bodies of all requests in flight are too large together
│   ├── EmbeddingFailed   500  the model failed on this input
│   ├── TooManyConnections 503  as many clients are connected as may be
│   └── Unavailable       503  the server is shutting down, or the model cannot be loaded
│       └── Loading       503  the model is not there yet; Retry-After says when to come back
└── SetupError            the command ends with `exit_code`
    ├── CardsError        3    models.toml or a setting is wrong
    ├── CheckpointError   4    a model's files are missing, broken, or not what they should be
    ├── DoesNotFit        4    a model is larger than the memory that models may take
    ├── Stopped           4    a model was unloaded before it was there
    ├── AddressError      5    the address or port cannot be had
    ├── BulkError         6    an input, an output or a server will not do for embedding files
    ├── ServerError       1    a running server cannot be reached, or refuses
    └── ServiceError      1    launchd or systemd did not do as told, or a file is in the way
"""

import re
from collections.abc import Sequence
from typing import Literal

from embedsvc.wording.plain import shown

EXIT_BAD = 1
EXIT_USAGE = 2
EXIT_SETTING = 3
EXIT_MODEL = 4
EXIT_ADDRESS = 5
EXIT_BULK = 6
EXIT_HUNG = 7
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
EXIT_TERMINATED = 143
EXITS = {
    0: "it did what it was told",
    EXIT_BAD: "it did not, or not all of it, or what it looked at is not well",
    EXIT_USAGE: "its command line is wrong",
    EXIT_SETTING: "a setting, the cards file, a key or a certificate is wrong",
    EXIT_MODEL: "a model cannot be loaded",
    EXIT_ADDRESS: "its address and port are taken, or not of this machine",
    EXIT_BULK: "embedding or searching files cannot begin or go on",
    EXIT_HUNG: "the device or event loop hung, a model stayed broken, or stopping took too long",
    EXIT_INTERRUPTED: "it was interrupted (Ctrl-C), a server for the second time",
    EXIT_PIPE: "nobody reads what it prints any more",
    EXIT_TERMINATED: "a server was told to stop for the second time (SIGTERM)",
}
"""Every code that `embedsvc` ends with, each of one meaning."""
MESSAGE = 1500
"""Characters of a message about files."""
WORDS = re.compile("(?<=[a-z])(?=[A-Z])")
ErrorType = Literal["invalid_request_error", "max_tokens_per_request", "tokens", "server_error"]


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

    @property
    def reason(self) -> str:
        """What sort of error it is, for metrics: `model_not_found`."""
        return WORDS.sub("_", type(self).__name__).lower()


class BadRequest(RequestError):
    """What the client sent cannot be answered, now or later."""

    status = 400
    type = "invalid_request_error"


class EmptyInput(BadRequest):
    """There is no input, or one that is empty."""


class NoTokens(BadRequest):
    """The model has no token for an input."""


class TooManyTokens(BadRequest):
    """The inputs of one request have more tokens than one request may have."""

    type = "max_tokens_per_request"
    code = "max_tokens_per_request"

    def __init__(self, tokens: int | str, limit: int) -> None:
        super().__init__(f"Requested {tokens} tokens, max {limit} tokens per request")


class Unauthorized(RequestError):
    """No key was sent (`key` is None), or one that is not the server's."""

    status = 401
    type = "invalid_request_error"

    def __init__(self, key: str | None) -> None:
        if key is None:
            message = (
                "You didn't provide an API key. You need to provide your API key in an "
                "Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
        else:
            hidden = f"{key[:5]}***{key[-4:]}" if len(key) >= 16 else "***"
            message = (
                f"Incorrect API key provided: {hidden}. "
                "Its operator can tell you a key of this server."
            )
            self.code = "invalid_api_key"
        super().__init__(message)
        self.headers["WWW-Authenticate"] = "Bearer"


class Forbidden(RequestError):
    """A server without keys answers its own machine only; the message says how to widen that."""

    status = 403
    type = "invalid_request_error"


class NoRoute(RequestError):
    """A path or a method that nothing answers; 405 names what would be answered in `Allow`."""

    type = "invalid_request_error"

    def __init__(self, method: str, path: str, *, allow: str | None = None) -> None:
        if allow is None:
            super().__init__(f"Invalid URL ({method} {shown(path)})")
            self.status = 404
        else:
            super().__init__(
                f"Not allowed to {method} on {shown(path)}. "
                "(HINT: Perhaps you meant to use a different HTTP method?)"
            )
            self.status = 405
            self.headers["Allow"] = allow


class BodyTooLarge(RequestError):
    """More bytes than the server reads."""

    status = 413
    type = "invalid_request_error"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body of your request is too large: the limit is {limit} bytes.")


class UnsupportedBody(RequestError):
    """A body that is encoded in a way that the server does not read."""

    status = 415
    type = "invalid_request_error"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"We cannot read the body of your request: {why}. "
            "It may be packed as gzip, deflate or zstd, and its charset is best UTF-8."
        )
        self.headers["Accept-Encoding"] = "gzip, deflate, zstd"


class TimedOut(RequestError):
    """The client took too long over the head or the body of its request."""

    status = 408
    type = "invalid_request_error"

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(
            f"The {part} of your request came too slowly, or not at all: the limit is "
            f"{seconds:g} seconds."
        )


class HeadTooLarge(RequestError):
    """More bytes before the body than the server reads."""

    status = 431
    type = "invalid_request_error"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The headers of your request are too large: the limit is {limit} bytes.")


class TooManyBytes(RequestError):
    """What is being read and answered for all clients takes the memory there is for it."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"Rate limit reached: requests in flight have {limit} bytes. Please try again in 1s."
        )
        self.headers["Retry-After"] = "1"


class TooManyConnections(RequestError):
    """As many clients are connected as may be."""

    status = 503

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} clients are connected, and no more may be. Please try again in 1s."
        )
        self.headers["Retry-After"] = "1"


class ClientGone(RequestError):
    """The client hung up. Nobody reads the answer; the number is nginx's."""

    status = 499

    def __init__(self) -> None:
        super().__init__("The client closed the connection.")


class ModelNotFound(RequestError):
    """No card has the requested name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, model: str, *, param: str | None = None, near: Sequence[str] = ()) -> None:
        """`near`: names that may have been meant."""
        said = f"The model `{shown(model)}` does not exist or you do not have access to it."
        if near:
            *others, last = (f"`{name}`" for name in near)
            said += f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
        super().__init__(said, param=param)


class InstanceNotFound(RequestError):
    """No instance has that id."""

    status = 404
    type = "invalid_request_error"
    code = "instance_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no instance `{shown(name)}`.")


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


class Loading(Unavailable):
    """The model is on its way and took longer than a request waits."""

    def __init__(self, model: str, state: str, progress: tuple[int, int]) -> None:
        done, total = progress
        percent = f" ({100 * done // total} %)" if total else ""
        super().__init__(f"The model `{model}` is {state}{percent}. Please try again in 5s.")
        self.headers["Retry-After"] = "5"


class SetupError(EmbedsvcError):
    """An error that ends the command: one line, and an exit code of its own."""

    exit_code = EXIT_BAD


class CardsError(SetupError):
    """A cards file or a setting is wrong; the message names file, card and key."""

    exit_code = EXIT_SETTING


class CheckpointError(SetupError):
    """A model's files are missing, broken, or do not fit the card.

    What its message takes from the files, a stranger wrote: it is one line, of bounded length.
    """

    exit_code = EXIT_MODEL

    def __init__(self, message: str) -> None:
        super().__init__(shown(shown(message, MESSAGE), MESSAGE))


class DoesNotFit(SetupError):
    """A model needs more memory than models may take; the message has both numbers."""

    exit_code = EXIT_MODEL


class Stopped(SetupError):
    """A model was unloaded while it was on its way."""

    exit_code = EXIT_MODEL


class AddressError(SetupError):
    """The address cannot be listened on."""

    exit_code = EXIT_ADDRESS


class BulkError(SetupError):
    """Embedding files cannot begin or go on; the message names the file or the server."""

    exit_code = EXIT_BULK


class ServerError(SetupError):
    """A running server was asked for something, and it did not do it; the message says why."""


def key_refused(url: str, *, sent: bool) -> str:
    """What a person at a command line is told of a server's 401."""
    said = "does not take the key that was sent" if sent else "wants a key"
    return f"{url} {said}: say one of its keys by --api-key, or in EMBEDSVC_API_KEY"


class ServiceError(SetupError):
    """The service could not be installed, removed, started or stopped."""
