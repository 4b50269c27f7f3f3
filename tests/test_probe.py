"""Who listens at an address, by what they answer."""

import socket
import subprocess
import sys

import pytest

from embedsvc.probe import Found, Place, probe
from tests.support.http_server import answering


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"status": "ready"}', Found("ready", "ready")),
        (503, b'{"error": {"message": "loading"}}', Found("not ready", "loading")),
        (200, b'{"status": "ok"}', Found("other", "it answers GET /ready with 200")),
        (404, b'{"detail": "Not Found"}', Found("other", "it answers GET /ready with 404")),
        (200, b"<html>", Found("other", "it does not answer GET /ready as embedsvc does")),
    ],
)
def test_a_server_is_known_by_its_answer(status: int, body: bytes, found: Found) -> None:
    with answering(status, body) as port:
        assert probe(Place("127.0.0.1", port)) == found
        assert probe(Place("", port)) == found  # everywhere


def test_where_nobody_listens_nobody_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening, and nobody else can take it
        assert probe(Place("127.0.0.1", taken.getsockname()[1])).who == "nobody"


def test_a_server_that_listens_but_is_not_there_yet_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert probe(Place("127.0.0.1", listener.getsockname()[1]), seconds=0.01).who == "not ready"


@pytest.mark.parametrize(("body", "code"), [(b'{"status": "ready"}', 0), (b"{}", 1)])
def test_a_container_s_health_check_is_an_exit_code(body: bytes, code: int) -> None:
    with answering(200, body) as port:
        done = subprocess.run(
            [sys.executable, "-m", "embedsvc.probe"],
            env={"EMBEDSVC_PORT": str(port)},
            capture_output=True,
        )
        assert done.returncode == code
