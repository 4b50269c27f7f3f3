"""Who answers at an address; `python -m embedsvc.probe` ends with 0 if it is a server, and ready.

That is a container's health check, so nothing heavy is imported here.
"""

import http.client
import json
import os
import sys
from typing import Any, Literal, NamedTuple

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not listened on
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


class Found(NamedTuple):
    """Nobody; embedsvc, ready or not; or something else."""

    who: Literal["nobody", "ready", "not ready", "other"]
    said: str
    """Why, in words."""


def probe(host: str, port: int, seconds: float = 5.0) -> Found:
    """Who listens there, by what they say to `GET /ready`."""
    connection = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=seconds)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        said: Any = json.loads(answer.read(65536))
    except ConnectionRefusedError:
        return Found("nobody", "nothing listens there")
    except TimeoutError:
        return Found("not ready", "it listens but does not answer yet")
    except (OSError, http.client.HTTPException) as error:
        return Found("other", f"{type(error).__name__}: {error}")
    except UnicodeError:
        return Found("nobody", f"{host} is not the name of a host")
    except ValueError:
        return Found("other", "it does not answer GET /ready as embedsvc does")
    finally:
        connection.close()
    match answer.status, said:
        case 200, {"status": "ready"}:
            return Found("ready", "ready")
        case 503, {"error": {"message": str(message)}}:
            return Found("not ready", message)
        case _:
            return Found("other", f"it answers GET /ready with {answer.status}")


def main() -> int:
    """Probe the server that the environment speaks of."""
    host = os.environ.get("EMBEDSVC_HOST") or DEFAULT_HOST
    port = int(os.environ.get("EMBEDSVC_PORT") or DEFAULT_PORT)
    found = probe(host, port)
    sys.stdout.write(f"{found.who}: {found.said}\n")
    return 0 if found.who == "ready" else 1


if __name__ == "__main__":
    raise SystemExit(main())
