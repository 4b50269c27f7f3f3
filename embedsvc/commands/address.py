"""Which running server a command asks, and the key that it sends there."""

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from embedsvc.errors import CardsError

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "EMBEDSVC_API_KEY"
OPENAI_VARIABLE = "OPENAI_API_KEY"
KEY_HELP = f"if it wants one; default: ${KEY_VARIABLE}, or with --url ${OPENAI_VARIABLE}"


def add_address(option: Callable[..., Any], path: str = "") -> None:
    """Add the options to a parser or a group. `path` is the end of the default URL."""
    option("--url", metavar="URL", help=f"of the server; default: {DEFAULT_URL}{path}")
    option("--api-key", metavar="KEY", help=KEY_HELP)


def url_of(url: str | None, path: str = "") -> str:
    """The URL of the option, or the default. Raises `CardsError` if no server can have it."""
    if url is None:
        return f"{DEFAULT_URL}{path}"
    parts = parsed(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise CardsError(f"--url must be like {DEFAULT_URL}{path}, not {url!r}")
    return url


def parsed(url: str) -> SplitResult | None:
    """The parts of a URL. None if it names no host, or an impossible port.

    >>> parsed("http://localhost:8000/v1").port, parsed("http://:0")
    (8000, None)
    """
    if " " in url or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        (parts.path + parts.query).encode("ascii")
        return parts if host and parts.port != 0 else None
    except ValueError:  # an empty part in the name, or a port that is no number
        return None


def key_of(
    api_key: str | None, url: str | None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The key to send: that of the option, else of embedsvc's variable, else of OpenAI's.

    OpenAI's variable counts only with a `url`, so that a shell's key for OpenAI is not sent to
    whatever listens at the default address. Raises `CardsError` if no header can hold the key.
    """
    key, source = api_key, "--api-key"
    if not key:
        key, source = environ.get(KEY_VARIABLE), KEY_VARIABLE
    if not key and url is not None:
        key, source = environ.get(OPENAI_VARIABLE), OPENAI_VARIABLE
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CardsError(f"{source}: a key is of printable ASCII characters")
    return key or None
