"""Which running server a command speaks to, and the key that it sends there."""

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
    """Add the options to a parser or a group; `path` is what the default URL ends in."""
    option("--url", metavar="URL", help=f"of the server; default: {DEFAULT_URL}{path}")
    option("--api-key", metavar="KEY", help=KEY_HELP)


def url_of(url: str | None, path: str = "") -> str:
    """The URL that was given, or the default. Raises `CardsError` if it is none of a server."""
    if url is None:
        return f"{DEFAULT_URL}{path}"
    parts = parsed(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise CardsError(f"--url must be like {DEFAULT_URL}{path}, not {url!r}")
    return url


def parsed(url: str) -> SplitResult | None:
    """The parts of a URL that names a host, and a port that may be; None of any other."""
    if " " in url or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        (parts.path + parts.query).encode("ascii")
        return parts if host and parts.port != 0 else None
    except ValueError:  # a name with a part that is empty, a port that is no number
        return None


def key_of(
    given: str | None, url: str | None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The key to send: as given, or of this server's variable.

    OpenAI's variable counts only where `url` was given: a key that a shell has for OpenAI does not
    go to whoever listens at the default address. Raises `CardsError` for what no header can hold.
    """
    key, source = given, "--api-key"
    if not key:
        key, source = environ.get(KEY_VARIABLE), KEY_VARIABLE
    if not key and url is not None:
        key, source = environ.get(OPENAI_VARIABLE), OPENAI_VARIABLE
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CardsError(f"{source}: a key is of printable ASCII characters")
    return key or None
