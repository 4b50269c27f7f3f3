"""Which servers must be asked without a proxy."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_here(url: str) -> bool:
    """Whether a URL is of this machine itself. A key for it must not leave the machine.

    >>> is_here("http://localhost:8000"), is_here("http://[::1]/v1"), is_here("http://10.0.0.5")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
