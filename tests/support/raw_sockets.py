"""A server with tight limits, and clients that speak to it byte by byte."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from tests.support.server import serving

HEAD = 2000
BODY = 20_000
CONNECTIONS = 12
POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
OTHERS = {
    b"/api/embed": {"error"},
    b"/embed?a=b": {"error", "error_type"},
    b"/v2/embed": {"message"},
}
"""The keys of an error, by a path of each other dialect."""


class Server:
    """A server with tight limits, and clients that speak to it byte by byte."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.process = process
        host, port = url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def says(self, sent: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
        """Status, headers and error of what is answered to these bytes, after which it hangs up."""
        with self.connect() as client:
            with suppress(ConnectionError):
                client.sendall(sent)
            return answer(client)

    def figure(self, name: str) -> float:
        """Of the metrics, one without labels."""
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith(f"embedsvc_{name} ")]
        return float(line.split()[-1])


def answer(client: socket.socket) -> tuple[int, dict[str, str], dict[str, object]]:
    """Status, headers and error of an answer after which the server hangs up."""
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    error = json.loads(body)
    if set(error) == {"error"} and isinstance(error["error"], dict):
        error = error["error"]
        assert set(error) == {"message", "type", "param", "code"}
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    return int(first.split()[1]), headers, error


@contextmanager
def serving_with_limits(folder: Path, tiny_folder: Path) -> Iterator[Server]:
    """A server with tight limits. At the end it is ready, and has logged no error."""
    cards = folder / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    limits = {"read-seconds": 1, "max-connections": CONNECTIONS, "max-head-bytes": HEAD}
    limits["max-body-bytes"] = BODY
    options = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
    options += ["--backend", "numpy", "--log-level", "error"]
    with serving(*options, cards=cards) as (url, process):
        yield Server(url, process)
        assert httpx2.get(f"{url}/ready").status_code == 200
        process.terminate()
        assert process.communicate(timeout=30)[1] == ""  # nothing of all that was a bug
        assert process.returncode == 0
