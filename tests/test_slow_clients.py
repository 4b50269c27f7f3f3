"""What clients that send slowly, do not read, or are too many may take from the others."""

import contextlib
import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.raw_sockets import (
    BODY,
    CONNECTIONS,
    OTHERS,
    POST,
    Server,
    serving_with_limits,
)
from tests.support.server import serving


def ask_for_health(client: socket.socket) -> None:
    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while not data.endswith(b'{"status":"ok"}'):
        chunk = client.recv(65536)
        assert chunk, data
        data += chunk
    assert data.startswith(b"HTTP/1.1 200 ")


def send_for_ever(client: socket.socket, data: bytes) -> None:
    while True:
        client.sendall(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Server]:
    with serving_with_limits(tmp_path_factory.mktemp("limits"), tiny_folder) as server:
        yield server


@pytest.mark.parametrize(
    "trickle",
    [
        b"POST /v1/emb",
        POST,
        POST + b"Content-Length: 1000\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (BODY - 1, b" " * (BODY - 1)),
    ],
    ids=["line", "headers", "body", "all but the last chunk"],
)
def test_who_sends_too_slowly_is_told_408(server: Server, trickle: bytes) -> None:
    status, _, error = server.says(trickle)
    assert (status, error["type"]) == (408, "invalid_request_error")


@pytest.mark.parametrize(
    ("how", "body"),
    [(b"Content-Length: 1000", b"{"), (b"Transfer-Encoding: chunked", b"no chunk")],
    ids=["it never comes", "it is broken"],
)
def test_a_request_that_was_answered_without_its_body_gets_no_second_answer(
    server: Server, how: bytes, body: bytes
) -> None:
    with server.connect() as client:
        client.sendall(b"POST /v1/none HTTP/1.1\r\nHost: localhost\r\n" + how + b"\r\n\r\n")
        data = client.recv(65536)
        client.sendall(body)
        while chunk := client.recv(65536):
            data += chunk
    assert data.startswith(b"HTTP/1.1 404 ")
    assert data.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("trickle", [b"", b" "], ids=["nothing", "byte after byte"])
def test_who_has_sent_much_of_a_body_is_not_waited_for_any_longer_either(
    tmp_path: Path, tiny_folder: Path, trickle: bytes
) -> None:
    cards = tmp_path / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\n")
    serves = serving("--backend", "numpy", "--read-seconds", "1", cards=cards)
    with serves as (url, process), Server(url, process).connect() as client:
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % (9 << 20) + b" " * (8 << 20))
        client.settimeout(0.2)
        for _ in range(100):
            client.sendall(trickle)
            with contextlib.suppress(TimeoutError):
                assert client.recv(100).startswith(b"HTTP/1.1 408 ")
                return
    pytest.fail("it waited on")


def test_who_sends_byte_after_byte_is_not_waited_for_any_longer(server: Server) -> None:
    with server.connect() as client:
        client.sendall(POST)
        client.settimeout(0.05)
        for _ in range(200):
            try:
                client.sendall(b"X")
                assert client.recv(100).startswith(b"HTTP/1.1 408 ")
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("it waited for all of them")


def test_who_says_nothing_is_hung_up_on(server: Server) -> None:
    with server.connect() as client:
        assert client.recv(100) == b""


def test_who_does_not_read_his_answers_is_hung_up_on(server: Server) -> None:
    body = json.dumps({"model": "tiny", "input": ["a"] * 2000}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with server.connect() as client:
        before = server.figure("connections")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            send_for_ever(client, request)
        while server.figure("connections") >= before:
            pass


def test_who_leaves_before_several_requests_are_answered_is_known_to_have_left(
    server: Server,
) -> None:
    body = json.dumps({"model": "tiny", "input": ["b"] * 2000}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(5):
        with server.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request * 8)
            assert client.recv(9) == b"HTTP/1.1 "
            # Not a goodbye, but a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while server.figure("connections") > 1 or server.figure("body_bytes"):
        pass


def test_connections_beyond_the_limit_are_told_503_and_there_is_room_again_later(
    server: Server,
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS)]
        for client in clients:  # each is known to be connected
            ask_for_health(client)
        status, headers, error = server.says(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, headers["retry-after"]) == (503, "1")
        assert error["type"] == "server_error"
        for path, kinds in OTHERS.items():
            asked = b"POST %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path
            status, _, error = server.says(asked)
            assert (status, {*error}) == (503, kinds)
        for client in clients:  # those that are in are served on
            ask_for_health(client)
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{server.url}/health").status_code == 200:
                break


def test_clients_that_vanish_leave_nothing_behind(server: Server) -> None:
    body = json.dumps({"model": "tiny", "input": ["vanishing"] * 50}).encode()
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for cut in range(1, len(whole), len(whole) // 40):
        with server.connect() as client:
            client.sendall(whole[:cut])
    while server.figure("connections") > 1 or server.figure("body_bytes"):
        pass
    metrics = httpx2.get(f"{server.url}/metrics").text
    assert 'status="500"' not in metrics


ANSWERS = 3_000_000
FEW = f"""
import sys
from embedsvc import cli
from embedsvc.web import app
app.ANSWERS_IN_FLIGHT = {ANSWERS}
sys.exit(cli.main(sys.argv[1:]))
"""
"""A server whose answers in flight may have so many bytes."""


@pytest.fixture
def few(tmp_path: Path, tiny_folder: Path) -> Iterator[Server]:
    cards = tmp_path / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    options = ("--backend", "numpy", "--log-level", "error")
    with serving(*options, cards=cards, command=(sys.executable, "-c", FEW, "serve")) as found:
        yield Server(*found)
        found[1].terminate()
        assert found[1].communicate(timeout=30)[1] == ""


def test_answers_that_are_not_read_take_no_more_than_their_share(few: Server) -> None:
    body = json.dumps({"model": "tiny", "input": ["a"] * 2000}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            client = stack.enter_context(few.connect())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(0.2)
            with contextlib.suppress(OSError):  # more than the machine keeps for him
                client.sendall(request * 40)
        most, answered = 0.0, 0
        with httpx2.Client(timeout=30) as reader:
            while answered < 5 or most < ANSWERS / 2:
                status = reader.post(f"{few.url}/v1/embeddings", content=body).status_code
                assert status in (200, 429)
                answered += status == 200
                most = max(most, few.figure("answer_bytes"))
        assert most <= ANSWERS
    while few.figure("answer_bytes"):
        pass
