"""Which program answers at an address, and whether it is a server that is ready.

`python -m embedsvc.probe` ends with 0 if it is. It is the health check of containers, so nothing
that takes long is imported here.
"""

import http.client
import json
import os
import socket
import sys
from typing import Any, Literal, NamedTuple

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not listened on
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


class Found(NamedTuple):
    """What was found: nobody, embedsvc (ready or not), or another program."""

    who: Literal["nobody", "ready", "not ready", "other"]
    reason: str
    """The reason, in words."""


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    uds: str | None = None
    """The path of a unix socket, which counts instead of host and port."""
    tls: bool = False

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}+unix:{self.uds}" if self.uds else f"{scheme}://{self.host}:{self.port}"


class Connection(http.client.HTTPConnection):
    """A connection to a server on this machine. Its certificate is not checked."""

    def __init__(self, place: Place, seconds: float) -> None:
        host = "localhost" if place.uds else EVERYWHERE.get(place.host, place.host)
        super().__init__(host, place.port, timeout=seconds)
        self._place = place

    def connect(self) -> None:
        if self._place.uds:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._place.uds)
        else:
            super().connect()
        if self._place.tls:
            import ssl  # takes long to import

            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)


def probe(place: Place, seconds: float = 5.0) -> Found:
    """Find out which program listens there, by its answer to `GET /ready`."""
    connection = Connection(place, seconds)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        body: Any = json.loads(answer.read(65536))
    except (ConnectionRefusedError, FileNotFoundError):
        return Found("nobody", "nothing listens there")
    except TimeoutError:
        return Found("not ready", "it listens but does not answer yet")
    except (OSError, http.client.HTTPException) as error:
        return Found("other", f"{type(error).__name__}: {error}")
    except UnicodeError:
        return Found("nobody", f"{place.host} is not the name of a host")
    except ValueError:
        return Found("other", "it does not answer GET /ready as embedsvc does")
    finally:
        connection.close()
    match answer.status, body:
        case 200, {"status": "ready"}:
            return Found("ready", "ready")
        case 503, {"error": {"message": str(message)}}:
            return Found("not ready", message)
        case _:
            return Found("other", f"it answers GET /ready with {answer.status}")


def main() -> int:
    """Probe the server whose address is in the environment."""
    environ = os.environ.get
    found = probe(
        Place(
            environ("EMBEDSVC_HOST") or DEFAULT_HOST,
            int(environ("EMBEDSVC_PORT") or DEFAULT_PORT),
            environ("EMBEDSVC_UDS"),
            bool(environ("EMBEDSVC_TLS_CERT")),
        )
    )
    sys.stdout.write(f"{found.who}: {found.reason}\n")
    return 0 if found.who == "ready" else 1


if __name__ == "__main__":
    raise SystemExit(main())
