"""What one client may take from the others: bytes, time and connections, as raw sockets see it."""

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from embedsvc.bounds import BODIES_IN_FLIGHT
from tests.support.server import serving

HEAD = 2000
BODY = 20_000
CONNECTIONS = 12
SMALL = {"model": "tiny", "input": "hello"}
POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"


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
            with contextlib.suppress(ConnectionError):
                client.sendall(sent)
            return answer(client)

    def figure(self, name: str) -> float:
        """Of the metrics, one without labels."""
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith(f"embedsvc_{name} ")]
        return float(line.split()[-1])


def answer(client: socket.socket) -> tuple[int, dict[str, str], dict[str, object]]:
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
    cards = tmp_path_factory.mktemp("limits") / "models.toml"
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


def test_what_is_no_http_is_a_400(server: Server) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET /v1 HTTP/9.9\r\n\r\n"):
        status, _, error = server.says(garbage)
        assert (status, error["type"]) == (400, "invalid_request_error")


OTHERS = {
    b"/api/embed": {"error"},
    b"/embed?a=b": {"error", "error_type"},
    b"/v2/embed": {"message"},
}


@pytest.mark.parametrize("path", OTHERS)
def test_what_is_refused_before_there_is_a_request_has_its_dialect_s_shape(
    server: Server, path: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path
    status, _, error = server.says(head + b"X: " + b"y" * HEAD + b"\r\n\r\n")
    assert (status, {*error}) == (431, OTHERS[path])
    status, _, error = server.says(head + b"no header\r\n\r\n")
    assert (status, {*error}) == (400, OTHERS[path])
    status, _, error = server.says(head + b"content-length: 9\r\n\r\nx")  # and no more
    assert (status, {*error}) == (408, OTHERS[path])


@pytest.mark.parametrize(
    "head",
    [
        POST + b"X: " + b"y" * HEAD + b"\r\n\r\n",
        POST + b"".join(b"X-%d: y\r\n" % i for i in range(HEAD)) + b"\r\n",
        POST + b"X: " + b"y" * 100 * HEAD,  # without end
        b"GET /" + b"y" * HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["long", "many", "endless", "path"],
)
def test_a_head_that_is_too_large_is_a_431(server: Server, head: bytes) -> None:
    status, _, error = server.says(head)
    assert (status, error["type"]) == (431, "invalid_request_error")
    assert str(HEAD) in str(error["message"])


def test_a_head_as_large_as_may_be_is_read_with_its_body(server: Server) -> None:
    headers = {"x": "y" * (HEAD - 500)}
    body = {"model": "tiny", "input": ["a " * 20] * 200}
    assert len(json.dumps(body)) > HEAD
    assert httpx2.post(f"{server.url}/v1/embeddings", json=body, headers=headers).is_success


def test_a_body_announced_as_too_large_is_a_413_before_it_is_sent(server: Server) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % (BODY + 1))
        status, headers, _ = answer(client)
        assert status == 413
        assert "x-request-id" in headers


def test_a_body_that_grows_too_large_is_a_413(server: Server) -> None:
    chunk = b"%x\r\n%b\r\n" % (5000, b" " * 5000)
    head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert server.says(head + 5 * chunk)[0] == 413


def test_bodies_that_are_too_large_together_are_a_429(server: Server) -> None:
    head = POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % BODY
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(server.connect()) for _ in range(BODIES_IN_FLIGHT)]
        for client in greedy:
            client.sendall(head + b" " * (BODY - 100))
        while server.figure("body_bytes") < BODIES_IN_FLIGHT * (BODY - 100):
            pass
        # Who holds little is answered all the same.
        assert httpx2.post(f"{server.url}/v1/embeddings", json=SMALL).status_code == 200
        # Then whoever holds most of what is too much gives way.
        third = stack.enter_context(server.connect())
        third.sendall(head + b" " * (BODY - 2000))
        told, _, _ = select.select(greedy, [], [], 20)
        status, headers, error = answer(told[0])
        assert (status, headers["retry-after"]) == (429, "1")
        assert error["code"] == "rate_limit_exceeded"
        assert server.figure("body_bytes") <= BODIES_IN_FLIGHT * BODY
    while server.figure("body_bytes"):
        pass


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
    "beside",
    [
        b"1;" + b"x" * HEAD + b"\r\n \r\n",
        b"1;a=b;" + b"c=d;" * 40 + b"\r\n \r\n",
        b"1" + b" " * 100 + b"\r\n \r\n",
        b"0\r\nX: " + b"y" * HEAD,
        b"0\r\n" + b"X: y\r\n" * HEAD,
    ],
    ids=["extension", "extensions", "spaces", "trailer", "trailers"],
)
def test_what_chunks_carry_beside_their_data_is_bounded(server: Server, beside: bytes) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        sent, told = 0, False
        while sent < 100 * HEAD and not told:
            with contextlib.suppress(ConnectionError):
                client.sendall(beside)
            sent += len(beside)
            told = bool(select.select([client], [], [], 0.01)[0])
        status, _, error = answer(client)
        assert (status, error["type"]) == (400, "invalid_request_error")


def test_small_chunks_are_read(server: Server) -> None:
    body = json.dumps({"model": "tiny", "input": "a " * 100}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    with server.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for i in range(0, len(chunks), 100):
            client.sendall(chunks[i : i + 100])
        client.sendall(b"0\r\nX-Checksum: 1\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


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


def test_all_that_was_refused_is_counted(server: Server) -> None:
    for sent in (b"hello\r\n\r\n", POST + b"X: " + b"y" * 2 * HEAD):
        server.says(sent)
    text = httpx2.get(f"{server.url}/metrics").text
    for reason in ("bad_request", "head_too_large"):
        assert f'embedsvc_refusals_total{{reason="{reason}"}}' in text


# --- answers that are not read -----------------------------------------------------------------

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
