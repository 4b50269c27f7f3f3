"""What one client may send: how large heads, bodies and chunks may be, as raw sockets see it."""

import contextlib
import json
import select
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from embedsvc.bounds import BODIES_IN_FLIGHT
from tests.support.raw_sockets import (
    BODY,
    HEAD,
    OTHERS,
    POST,
    Server,
    answer,
    serving_with_limits,
)

SMALL = {"model": "tiny", "input": "hello"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Server]:
    with serving_with_limits(tmp_path_factory.mktemp("limits"), tiny_folder) as server:
        yield server


def test_what_is_no_http_is_a_400(server: Server) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET /v1 HTTP/9.9\r\n\r\n"):
        status, _, error = server.says(garbage)
        assert (status, error["type"]) == (400, "invalid_request_error")


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


def test_all_that_was_refused_is_counted(server: Server) -> None:
    for sent in (b"hello\r\n\r\n", POST + b"X: " + b"y" * 2 * HEAD):
        server.says(sent)
    text = httpx2.get(f"{server.url}/metrics").text
    for reason in ("bad_request", "head_too_large"):
        assert f'embedsvc_refusals_total{{reason="{reason}"}}' in text
