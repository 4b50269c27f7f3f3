"""Requests that offer another protocol: answered in HTTP/1.1, as if they had not (RFC 9110 7.8)."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx2
import pytest

from tests.support.server import serving

Address = tuple[str, int]

SETTINGS = b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + SETTINGS,
    "websocket": b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
    "tls": b"connection: upgrade\r\nupgrade: TLS/1.3, HTTP/1.1\r\n",
    "twice": b"Upgrade: h2c\r\nUpgrade: spdy/3\r\n"
    b"Connection: upgrade\r\nConnection: keep-alive\r\n",
    "empty": b"Connection: Upgrade\r\nUpgrade:\r\n",
}
BODY = json.dumps({"model": "tiny", "input": "hello"}).encode()
FRAMED = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%x;of=two\r\n%b\r\n0\r\n\r\n"
    % (9, BODY[:9], len(BODY) - 9, BODY[9:]),
}
HOST = b"Host: localhost\r\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[str]:
    cards = tmp_path_factory.mktemp("offers") / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    with serving("--backend", "numpy", "--log-level", "error", cards=cards) as (url, process):
        yield url
        process.terminate()
        assert process.communicate(timeout=30)[1] == ""  # none of it was worth a line


@pytest.fixture
def client(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        yield client


def read(client: socket.socket, method: str = "POST") -> tuple[int, bytes]:
    answer = HTTPResponse(client, method=method)
    answer.begin()
    return answer.status, answer.read()


def vector(answer: tuple[int, bytes]) -> list[float]:
    status, body = answer
    assert status == 200, body
    return json.loads(body)["data"][0]["embedding"]


def post(offer: bytes, framed: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST /v1/embeddings HTTP/%b\r\n%b%b%b" % (version, HOST, offer, framed)


@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_the_body_of_a_request_with_an_offer_is_read(
    client: socket.socket, offer: bytes, framed: bytes
) -> None:
    client.sendall(post(b"", FRAMED["length"]))
    wanted = vector(read(client))
    for _ in range(3):  # over a connection that is kept
        client.sendall(post(offer, framed))
        assert vector(read(client)) == wanted


@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
def test_it_may_come_byte_by_byte(client: socket.socket, framed: bytes) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(OFFERS["h2c"], framed):
        client.sendall(bytes([byte]))
    assert len(vector(read(client))) > 1


def test_many_at_once_are_answered_in_order(client: socket.socket) -> None:
    requests: list[bytes] = []
    for i in range(24):
        offer = list(OFFERS.values())[i % 5] if i % 3 else b""
        body = json.dumps({"model": "tiny", "input": "hello " * (i + 1)}).encode()
        requests.append(post(offer, b"Content-Length: %d\r\n\r\n%b" % (len(body), body)))
    client.sendall(b"".join(requests))
    stream = client.makefile("rb")
    for i in range(24):
        length = 0
        assert stream.readline().startswith(b"HTTP/1.1 200 ")
        while (line := stream.readline()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = json.loads(stream.read(length))
        assert answer["usage"]["prompt_tokens"] == i + 3  # its own text's, and [CLS] and [SEP]


@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
def test_a_body_that_waits_to_be_asked_for_is_asked_for(
    client: socket.socket, framed: bytes
) -> None:
    head, _, body = post(OFFERS["h2c"] + b"Expect: 100-continue\r\n", framed).partition(b"\r\n\r\n")
    client.sendall(head + b"\r\n\r\n")
    asked = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.recv(len(asked), socket.MSG_WAITALL) == asked
    client.sendall(body)
    assert len(vector(read(client))) > 1


def test_so_is_one_of_http_1_0(client: socket.socket) -> None:
    client.sendall(post(OFFERS["h2c"], FRAMED["length"], b"1.0"))
    assert len(vector(read(client))) > 1
    assert client.recv(1) == b""


def test_on_every_route_an_offer_changes_nothing(url: str, client: socket.socket) -> None:
    paths = httpx2.get(f"{url}/openapi.json").json()["paths"]
    operations = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(operations) > 30
    for method, path in operations:
        if "event-stream" in json.dumps(paths[path][method]["responses"].get("200", {})):
            continue  # it does not end
        path = path.replace("{", "").replace("}", "")
        body = b'{"model_id": 1}' if method in ("post", "put") else b""  # nothing is to be loaded
        sent = [
            f"{method.upper()} {path} HTTP/1.1\r\n".encode()
            + HOST
            + offer
            + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            for offer in (b"", OFFERS["h2c"])
        ]
        answers: list[tuple[int, bytes]] = []
        for request in sent:
            client.sendall(request)
            answers.append(read(client, method.upper()))
        if path in ("/metrics", "/state"):  # they tell of time
            answers = [(status, b"") for status, _ in answers]
        assert answers[0] == answers[1], (method, path)


def test_a_body_of_doubtful_length_stays_refused(client: socket.socket) -> None:
    client.sendall(post(OFFERS["h2c"], b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"))
    assert read(client)[0] == 400
    assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "speaks HTTP/1.1"),
        (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\nhello", "is no proxy"),
        (b"CONNECT localhost:443 HTTP/1.1\r\n" + OFFERS["h2c"] + b"\r\n", "is no proxy"),
    ],
    ids=["HTTP/2 known before", "CONNECT", "CONNECT with an offer"],
)
def test_what_is_no_offer_is_refused(client: socket.socket, sent: bytes, said: str) -> None:
    client.sendall(sent)
    status, body = read(client)
    assert (status, said in json.loads(body)["error"]["message"]) == (400, True)
    assert client.recv(1) == b""
