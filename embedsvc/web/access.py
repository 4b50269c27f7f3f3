"""Who may call: clients with a key, or where there are no keys, clients on this machine.

A server without keys still has to refuse web pages that are open on its machine. The script of a
page may call it, which shows in the `Origin`. Or it may reach it under a name of the page's own
that resolves to this machine (DNS rebinding), which shows in the `Host`.
"""

import hmac
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from embedsvc.errors import CardsError, Forbidden, RequestError, Unauthorized
from embedsvc.settings import Settings
from embedsvc.system.text_files import read_text

OPEN = frozenset({"/health", "/ready"})
"""Paths that need no key, so that anything may watch the server."""
DASHBOARD = "/dashboard"
"""The path of the dashboard's page. Its files are below it. They are the same on every server and
tell nothing about this one, so they need no key. The page itself asks for the key."""
OLD_ADDRESS = re.compile(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+)){0,3}")
"""Short and octal ways to write an IPv4 address, as 127.1. No name in DNS looks like that."""
SHOWN = 200
"""How many characters of what a client sent a message repeats."""
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
        """The error that a request is refused with, None if it may go on."""
        if path in OPEN:
            return None
        if self._keys:
            page = path == DASHBOARD or path.startswith(f"{DASHBOARD}/")
            return None if page else self._without_key(headers)
        host = headers.get(b"host", b"")
        if host not in self._known_hosts:
            name = _hostname(f"//{host.decode('latin-1')}")
            if host and not self._is_this_server(name):
                return Forbidden(
                    f"This server does not answer to the host name '{name[:SHOWN]}'. "
                    "Allow it with --allowed-hosts, or set EMBEDSVC_API_KEYS."
                )
            if len(self._known_hosts) < 64:
                self._known_hosts.add(host)
        origin = headers.get(b"origin")
        if origin is not None and not self.allows(origin, host):
            return Forbidden(
                f"Web pages of '{origin[:SHOWN].decode('latin-1')}' may not use this server. "
                "Allow them with --cors-origins, or set EMBEDSVC_API_KEYS."
            )
        return None

    def allows(self, origin: bytes, host: bytes) -> bool:
        """Whether pages of an origin may read answers to requests that name this host.

        Applications that are not web pages always may.
        """
        name = origin.decode("latin-1")
        if self._origins:
            if "*" in self._origins or name in self._origins:
                return True
        elif self._keys:
            return True
        scheme = name.partition("://")[0].lower()
        if name != "null" and scheme not in ("http", "https"):
            return True  # the window of an application, or a browser's extension
        if name == "null":
            return False
        # An address proves nothing: whoever has one can serve a page from it.
        hostname = _hostname(name)
        return self._is_named(hostname) or self._is_same(name, host)

    def _is_this_server(self, name: str) -> bool:
        """Whether a request for this host is meant for this server."""
        if self._is_named(name):
            return True
        address = _address(name)
        if address is None:
            return False
        # No DNS is asked for an address: it is this machine's own, or the request was forwarded.
        return self._beyond or address.is_unspecified or is_local(address)

    def _is_named(self, name: str) -> bool:
        return "*" in self._hosts or name in self._hosts or is_loopback(name)

    def _is_same(self, origin: str, host: bytes) -> bool:
        """Whether a page calls the server that it came from, under a name of this server."""
        place = _place(origin)
        called = f"{origin.partition(':')[0]}://{host.decode('latin-1')}"
        return place is not None and place == _place(called) and self._is_this_server(place[0])

    def _without_key(self, headers: Headers) -> Unauthorized | None:
        bearer = headers.get(b"authorization", b"")
        scheme, _, token = bearer.partition(b" ")
        sent = [headers[name] for name in (b"api-key", b"x-api-key") if name in headers]
        if scheme.lower() == b"bearer" and token.strip():
            sent.insert(0, token.strip())
        found = False
        for key in sent:
            digest = sha256(key).digest()  # all of one length: time tells nothing
            for known in self._keys:
                found |= hmac.compare_digest(digest, known)
        if found:
            return None
        return Unauthorized(sent[0].decode("latin-1") if sent else None)


def check_address(address: str, settings: Settings) -> None:
    """Raises `CardsError` if a server without keys is about to listen to other machines."""
    if is_loopback(address) or settings.insecure or settings.api_keys or settings.api_keys_file:
        return
    raise CardsError(
        f"refusing to listen on {address} without keys: set EMBEDSVC_API_KEYS or --api-keys-file, "
        "or say --insecure"
    )


def is_loopback(name: str) -> bool:
    """Whether a name or an address of a host can only be reached from this machine itself.

    >>> is_loopback("localhost"), is_loopback("127.1"), is_loopback("::1"), is_loopback("10.0.0.5")
    (True, True, True, False)
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def is_local(address: IPv4Address | IPv6Address) -> bool:
    """Whether one of this machine's interfaces has this address. Only then can it be bound."""
    if address.is_multicast:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    zones = [0]
    if address.version == 6 and address.is_link_local:  # such an address belongs to one interface
        zones = [number for number, _ in socket.if_nameindex()]
    for zone in zones:
        place = (str(address), 0) if address.version == 4 else (str(address), 0, 0, zone)
        with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind(place)
            return True
    return False


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, without its zone. None if it is a name."""
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        if not OLD_ADDRESS.fullmatch(name):
            return None
        try:
            return IPv4Address(socket.inet_aton(name))
        except OSError:
            return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _place(url: str) -> tuple[str, int] | None:
    """The host and the port of a URL. None if it has none.

    >>> _place("https://example.org/x"), _place("http://[::1]:8000")
    (('example.org', 443), ('::1', 8000))
    """
    try:
        port = urlsplit(url).port
    except ValueError:
        return None
    name = _hostname(url)
    if not name:
        return None
    return name, port or (443 if url[:6].lower() == "https:" else 80)


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
