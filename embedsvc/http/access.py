"""Who may call: those with a key, or where there are no keys, this machine.

A server without keys still has to beware of web pages open on its machine. A page's script may
call it (its `Origin` tells), or reach it under a name of the page's own that resolves to this
machine (DNS rebinding; the `Host` tells).
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from embedsvc.errors import CardsError, Forbidden, RequestError, Unauthorized
from embedsvc.settings import Settings
from embedsvc.text_files import read_text

OPEN = frozenset({"/health", "/ready"})
"""Paths that whoever watches the server may always ask for."""
DASHBOARD = "/dashboard"
"""The dashboard's page; its files are below. They are the same on every server and tell nothing of
this one, so they need no key: the page asks for it."""
Headers = Mapping[bytes, bytes]


class Access:
    """The rules of one server."""

    def __init__(self, settings: Settings) -> None:
        """Raises `CardsError` if the file of keys cannot be read or holds none."""
        self._keys = tuple(sha256(key.encode()).digest() for key in _keys(settings))
        self._hosts = frozenset(settings.allowed_hosts)
        self._origins = frozenset(settings.cors_origins)
        self._beyond = not is_loopback(settings.host)
        self._known_hosts: set[bytes] = set()

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def refusal(self, path: str, headers: Headers) -> RequestError | None:
        """Why a request is refused, if it is."""
        if path in OPEN:
            return None
        if self._keys:
            page = path == DASHBOARD or path.startswith(f"{DASHBOARD}/")
            return None if page else self._without_key(headers)
        host = headers.get(b"host", b"")
        if host not in self._known_hosts:
            name = _hostname(f"//{host.decode('latin-1')}")
            if host and not self._is_ours(name):
                return Forbidden(
                    f"This server does not answer to the host name '{name}'. "
                    "Allow it with --allowed-hosts, or set EMBEDSVC_API_KEYS."
                )
            if len(self._known_hosts) < 64:
                self._known_hosts.add(host)
        origin = headers.get(b"origin")
        if origin is not None and not self.allows(origin):
            return Forbidden(
                f"Web pages of '{origin.decode('latin-1')}' may not use this server. "
                "Allow them with --cors-origins, or set EMBEDSVC_API_KEYS."
            )
        return None

    def allows(self, origin: bytes) -> bool:
        """Whether pages of an origin may read answers. Apps that are no web pages always may."""
        name = origin.decode("latin-1")
        if self._origins:
            if "*" in self._origins or name in self._origins:
                return True
        elif self._keys:
            return True
        scheme = name.partition("://")[0]
        if name != "null" and scheme not in ("http", "https"):
            return True  # an app's window or a browser's extension
        return name != "null" and self._is_ours(_hostname(name))

    def _is_ours(self, name: str) -> bool:
        if "*" in self._hosts or name in self._hosts or is_loopback(name):
            return True
        return self._beyond and _is_address(name)  # which nobody's DNS can point here

    def _without_key(self, headers: Headers) -> Unauthorized | None:
        bearer = headers.get(b"authorization", b"")
        scheme, _, token = bearer.partition(b" ")
        given = [headers[name] for name in (b"api-key", b"x-api-key") if name in headers]
        if scheme.lower() == b"bearer" and token.strip():
            given.insert(0, token.strip())
        found = False
        for key in given:
            digest = sha256(key).digest()  # of one length, so that comparing tells nothing of it
            for known in self._keys:
                found |= hmac.compare_digest(digest, known)
        if found:
            return None
        return Unauthorized(given[0].decode("latin-1") if given else None)


def check_address(address: str, settings: Settings) -> None:
    """Raises `CardsError` if a server without keys is about to listen beyond its machine."""
    if is_loopback(address) or settings.insecure or settings.api_keys or settings.api_keys_file:
        return
    raise CardsError(
        f"refusing to listen on {address} without keys: set EMBEDSVC_API_KEYS or --api-keys-file, "
        "or say --insecure"
    )


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _keys(settings: Settings) -> list[str]:
    keys = list(settings.api_keys)
    file = settings.api_keys_file
    if file is not None:
        try:
            lines = [line.strip() for line in read_text(file).split("\n")]
        except CardsError as error:
            raise CardsError(f"api_keys_file {error}") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise CardsError(f"api_keys_file {file}: has no key")
        keys += found
    return keys
