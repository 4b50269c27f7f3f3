"""The server that is measured, and what it answers to one request at a time."""

import http.client
from typing import Any, NamedTuple

import orjson

from embedsvc.errors import ServerError

PATIENCE_SECONDS = 60.0
"""How long an answer is waited for."""


class Target(NamedTuple):
    """The server to measure."""

    host: str
    port: int
    path: str
    key: str
    model: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}"

    def head(self, route: str = "/embeddings") -> str:
        """The head of a request, without the length of its body."""
        return (
            f"POST {self.path}{route} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
        )

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> tuple[int, bytes]:
        """The status and the body of the answer, waited for by `patience` seconds.

        Raises `ServerError` if there is none.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            connection.request(method, path, orjson.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"nothing answers at {self.host}:{self.port}: {error}") from None
        finally:
            connection.close()
