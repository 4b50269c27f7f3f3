"""Every error that a person can see: as the answer to a request, or as a line at a command's end.

An error knows what is wrong, not how a dialect writes it: that is in `web/refusals.py`. The file
has more than 300 lines because the tree is to be seen whole.

EmbedsvcError
├── RequestError          is answered with `status`, in the shape of the route's dialect
│   ├── BadRequest        400  what was sent is wrong; the message names the field and the limit
│   │   ├── EmptyInput    400  there is no input, or one of them is empty
│   │   ├── NoTokens      400  the model has no token for an input
│   │   └── TooManyTokens 400  all inputs of a request together are too long
│   ├── Unauthorized      401  the server has keys, and none of them was sent
│   ├── Forbidden         403  a foreign web page, or another host's name, on a server without keys
│   ├── ModelNotFound     404  no card has this name
│   ├── InstanceNotFound  404  no instance has this id
│   ├── NotThere          404  there is nothing of that name or path
│   ├── NoRoute      404, 405  nothing answers at this path, or not to this method
│   ├── BodyTooLarge      413  the request's body has too many bytes
│   ├── UnsupportedBody   415  the server cannot read the encoding or charset of the body
│   ├── TimedOut          408  the client took too long to send its request
│   ├── HeadTooLarge      431  the request's first line and headers have too many bytes
│   ├── ClientGone        499  the client hung up before the answer
│   ├── Overloaded        429  the model's queue is full; Retry-After says when to come back
│   ├── TooManyBytes      429  the bodies or the answers in flight are too large together
│   ├── EmbeddingFailed   500  the model failed on this input
│   ├── TooManyConnections 503  as many clients are connected as the server allows
│   └── Unavailable       503  the server is shutting down, or the model cannot be loaded
│       └── Loading       503  the model is still loading; Retry-After says when to come back
└── SetupError            ends the command with `exit_code`
    ├── CardsError        3    models.toml or a setting is wrong
    ├── CheckpointError   4    a model's files are missing, broken, or not what they should be
    ├── DoesNotFit        4    a model is larger than the memory that models may take
    ├── Stopped           4    a model was unloaded before it was ready
    ├── AddressError      5    the server cannot listen on the address or port
    ├── BulkError         6    an input, an output or a server is of no use for embedding files
    ├── ServerError       1    a running server cannot be reached, or refuses
    └── ServiceError      1    launchd or systemd failed, or a file is in the way
"""

import re
from collections.abc import Mapping, Sequence

from embedsvc.exits import EXIT_ADDRESS, EXIT_BAD, EXIT_BULK, EXIT_MODEL, EXIT_SETTING
from embedsvc.wording.plain import shown

MESSAGE = 1500
"""The longest message about a checkpoint's files, in characters."""
WORDS = re.compile("(?<=[a-z])(?=[A-Z])")


class EmbedsvcError(Exception):
    """The root of the tree."""


class RequestError(EmbedsvcError):
    """An error of one request, with what its HTTP answer needs."""

    status: int = 500

    def __init__(
        self, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`field` names the part of the request that is wrong, where it is one part."""
        super().__init__(message)
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    @property
    def reason(self) -> str:
        """The name of this kind of error in the log and in metrics: `model_not_found`."""
        return WORDS.sub("_", type(self).__name__).lower()


class BadRequest(RequestError):
    """What the client sent cannot be answered, now or later."""

    status = 400


class EmptyInput(BadRequest):
    """There is no input, or one of them is empty."""


class NoTokens(BadRequest):
    """The model has no token for an input."""


class TooManyTokens(BadRequest):
    """The inputs of one request have more tokens than one request may have."""

    def __init__(self, tokens: int | str, limit: int) -> None:
        super().__init__(f"Requested {tokens} tokens, max {limit} tokens per request")


class Unauthorized(RequestError):
    """No key was sent (`key` is None), or one that is not the server's."""

    status = 401

    def __init__(self, key: str | None) -> None:
        self.key_sent = key is not None
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
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(RequestError):
    """A server without keys answers its own machine only; the message says how to widen that."""

    status = 403


class NoRoute(RequestError):
    """Nothing answers at a path, or not to this method: `allow` lists the methods that it has."""

    def __init__(self, method: str, path: str, *, allow: str | None = None) -> None:
        if allow is None:
            super().__init__(f"Invalid URL ({method} {shown(path)})")
            self.status = 404
        else:
            super().__init__(
                f"Not allowed to {method} on {shown(path)}. "
                "(HINT: Perhaps you meant to use a different HTTP method?)",
                headers={"Allow": allow},
            )
            self.status = 405


class BodyTooLarge(RequestError):
    """The body of a request has more bytes than the server reads."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body of your request is too large: the limit is {limit} bytes.")


class UnsupportedBody(RequestError):
    """The body of a request is encoded in a way that the server does not read."""

    status = 415

    def __init__(self, why: str) -> None:
        super().__init__(
            f"We cannot read the body of your request: {why}. "
            "It may be packed as gzip, deflate or zstd, and its charset is best UTF-8.",
            headers={"Accept-Encoding": "gzip, deflate, zstd"},
        )


class TimedOut(RequestError):
    """The client took too long to send a part of its request, the head or the body."""

    status = 408

    def __init__(self, part: str, seconds: float) -> None:
        super().__init__(
            f"The {part} of your request came too slowly, or not at all: the limit is "
            f"{seconds:g} seconds."
        )


class HeadTooLarge(RequestError):
    """The first line and the headers of a request have more bytes than the server reads."""

    status = 431

    def __init__(self, limit: int) -> None:
        super().__init__(f"The headers of your request are too large: the limit is {limit} bytes.")


class TooManyBytes(RequestError):
    """The requests and answers in flight fill the memory that there is for them."""

    status = 429

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"Rate limit reached: requests in flight have {limit} bytes. Please try again in 1s.",
            headers={"Retry-After": "1"},
        )


class TooManyConnections(RequestError):
    """As many clients are connected as the server allows."""

    status = 503

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} clients are connected, and no more may be. Please try again in 1s.",
            headers={"Retry-After": "1"},
        )


class ClientGone(RequestError):
    """The client hung up, so nobody reads the answer. The status is the one that nginx logs."""

    status = 499

    def __init__(self) -> None:
        super().__init__("The client closed the connection.")


class ModelNotFound(RequestError):
    """No card has the requested name."""

    status = 404

    def __init__(self, model: str, *, near: Sequence[str] = ()) -> None:
        """`near` has similar names, one of which may have been meant."""
        message = f"The model `{shown(model)}` does not exist or you do not have access to it."
        if near:
            *others, last = (f"`{name}`" for name in near)
            message += f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
        super().__init__(message)


class InstanceNotFound(RequestError):
    """No instance has the requested id."""

    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no instance `{shown(name)}`.")


class NotThere(RequestError):
    """There is nothing of the requested name or path; the message has the words of a dialect."""

    status = 404


class Overloaded(RequestError):
    """The model's queue is full. There should be room in `retry_after` seconds, 1 to 59."""

    status = 429

    def __init__(self, waiting_tokens: int, limit: int, retry_after: int) -> None:
        super().__init__(
            f"Rate limit reached: {waiting_tokens} tokens are waiting and the limit is {limit}. "
            f"Please try again in {retry_after}s.",
            # SDKs ignore longer waits or give up: Python's from 120 s on, Node's from 60 s on.
            headers={"Retry-After": str(retry_after)},
        )


class EmbeddingFailed(RequestError):
    """The model gave no usable vector for an input."""


class Unavailable(RequestError):
    """The server cannot answer now: it is stopping, or the model does not load.

    Clients are always told when to come back: in 5 seconds, where nothing better is known.
    """

    status = 503

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers=headers or {"Retry-After": "5"})


class Loading(Unavailable):
    """The model is still being downloaded or loaded after as long as a request waits for it.

    `progress` is the bytes done and the bytes in all.
    """

    def __init__(self, model: str, state: str, progress: tuple[int, int]) -> None:
        done, total = progress
        percent = f" ({100 * done // total} %)" if total else ""
        super().__init__(f"The model `{model}` is {state}{percent}. Please try again in 5s.")


class SetupError(EmbedsvcError):
    """An error that ends a command, with one line and an exit code."""

    exit_code = EXIT_BAD


class CardsError(SetupError):
    """A cards file or a setting is wrong; the message names file, card and key."""

    exit_code = EXIT_SETTING


class CheckpointError(SetupError):
    """A model's files are missing, broken, or do not fit the card.

    The message quotes files that strangers wrote, so it is made one line of bounded length.
    """

    exit_code = EXIT_MODEL

    def __init__(self, message: str) -> None:
        super().__init__(shown(shown(message, MESSAGE), MESSAGE))


class DoesNotFit(SetupError):
    """A model needs more memory than models may take; the message has both numbers."""

    exit_code = EXIT_MODEL


class Stopped(SetupError):
    """A model was unloaded before it was ready."""

    exit_code = EXIT_MODEL


class AddressError(SetupError):
    """The server cannot listen on the address or port."""

    exit_code = EXIT_ADDRESS


class BulkError(SetupError):
    """Embedding files cannot begin or go on; the message names the file or the server."""

    exit_code = EXIT_BULK


class ServerError(SetupError):
    """A running server cannot be reached, or did not do what it was asked; the message says why."""


class ServiceError(SetupError):
    """The service could not be installed, removed, started or stopped."""


def key_refused(url: str, *, sent: bool) -> str:
    """The message for a person at the command line whose key, or lack of one, a server refused."""
    reason = "does not take the key that was sent" if sent else "wants a key"
    return f"{url} {reason}: say one of its keys by --api-key, or in EMBEDSVC_API_KEY"
