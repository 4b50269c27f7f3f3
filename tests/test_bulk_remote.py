"""Embedding by a server that is busy, or away, or refuses."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import httpx2
import numpy as np
import pytest

from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.bulk.remote import Remote, open_remote
from embedsvc.errors import BadRequest, BulkError, EmbeddingFailed
from embedsvc.texts.requests import Chunking
from tests.support.fake_server import FakeServer, refusal, vector_of


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


PLAIN = EmbedOptions()


def embed(
    server: FakeServer, *texts: str, patience: float = 600.0, how: EmbedOptions = PLAIN
) -> tuple[Any, list[float]]:
    """What is embedded, and the pauses that were made, in no time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> Any:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            remote = Remote(client, "m", 2, patience=patience, sleep=sleep)
            return await remote.embed(texts, how)

    return asyncio.run(main()), pauses


def test_vectors_come_as_they_are(server: FakeServer) -> None:
    embedded, pauses = embed(server, "a", "b")
    np.testing.assert_array_equal(embedded.vectors, [vector_of("a"), vector_of("b")])
    assert (embedded.tokens, pauses) == (4, [])


def test_only_what_was_asked_for_is_sent(server: FakeServer) -> None:
    embed(server, "a")
    embed(server, "a", how=EmbedOptions("query", "p: ", "end", 8))
    plain = {"model": "m", "input": ["a"], "encoding_format": "base64"}
    assert server.requests == [
        plain,
        plain | {"input_type": "query", "prompt": "p: ", "truncate": "end", "dimensions": 8},
    ]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(server: FakeServer, status: int) -> None:
    server.script += [
        refusal(status, "busy", Retry_After="7"),
        refusal(status, "busy", Retry_After=formatdate(time.time() + 100, usegmt=True)),
        refusal(status, "busy", Retry_After="soon"),
    ]
    embedded, pauses = embed(server, "a")
    np.testing.assert_array_equal(embedded.vectors[0], vector_of("a"))
    assert pauses[0] == 7
    assert 90 < pauses[1] <= 100
    assert 0 < pauses[2] <= 1


def test_a_connection_that_is_lost_is_made_again_after_longer_and_longer(
    server: FakeServer,
) -> None:
    server.script += [None] * 9
    embedded, pauses = embed(server, "a", "b")
    assert embedded.vectors.shape == (2, 8)
    assert len(pauses) == 9
    for pause, longest in zip(pauses, (0.5, 1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert longest / 2 <= pause <= longest


def test_a_server_that_stays_away_is_given_up(server: FakeServer) -> None:
    server.script += [refusal(503, "loading", Retry_After="20")]
    with pytest.raises(BulkError, match=r"http://127.*: 503: loading"):
        embed(server, "a", patience=10)
    server.__exit__()
    with pytest.raises(BulkError, match=r"http://127.*: ConnectError"):
        embed(server, "a", patience=0)


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, BadRequest, "^Invalid 'input': no$"),
        (413, BadRequest, "^Invalid 'input': no$"),
        (500, EmbeddingFailed, "^Invalid 'input': no$"),
        (
            401,
            BulkError,
            r"http://\S+ wants a key: say one .* by --api-key, or in EMBEDSVC_API_KEY",
        ),
        (404, BulkError, r"http://\S+ 404: Invalid 'input': no$"),
        (302, BulkError, r"http://\S+ 302: "),
    ],
)
def test_a_refusal_is_of_the_request_or_for_good(
    server: FakeServer, status: int, error: type[Exception], said: str
) -> None:
    server.script.append(refusal(status, "Invalid 'input': no"))
    with pytest.raises(error, match=said):
        embed(server, "a")
    assert len(server.requests) == 1


def test_an_error_that_is_no_json_is_shown(server: FakeServer) -> None:
    server.script.append((404, {}, b"<h1>nothing here</h1>"))
    with pytest.raises(BulkError, match="404: <h1>nothing here"):
        embed(server, "a")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hello", "malformed"),
        (b'{"data": []}', "0 vectors for 1 texts"),
        (b'{"data": [{"index": 1, "embedding": [1]}]}', "rows are missing"),
        (b'{"data": [{"index": 0, "embedding": "AADAfw=="}]}', "not finite"),
        (b'{"data": [{"index": 0, "embedding": "AAAA"}]}', "buffer size"),
        (b'{"data": [{"index": 0, "embedding": [1e300]}]}', "not finite"),
        (b'{"data": [{"index": 0, "embedding": [0, 0]}]}', "a vector is zero"),
        (b'{"data": [{"index": 0, "embedding": ""}]}', "no dimensions"),
        (b'{"data": [{"index": -1, "embedding": [1]}]}', "rows are missing"),
        (b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}', "missing"),
        (b'{"data": [{"index": 0, "embedding": [1], "x": ' + b"[" * 100_000, "recursion"),
        (b'{"data": [{"embedding": [1]}]}', "index"),
        (b'{"data": [{"index": 0, "embedding": ["1"]}]}', "expected a number, not a string"),
        (b"\xff\xfe", "malformed"),
    ],
)
def test_answers_that_are_no_vectors_end_it(server: FakeServer, body: bytes, said: str) -> None:
    server.script.append((200, {}, body))
    with pytest.raises(BulkError, match=f"no embeddings: .*{said}"):
        embed(server, "a")


def test_this_machine_is_not_asked_through_a_proxy(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")

    async def main() -> str:
        async with open_remote(server.url, "some-key", "m", 2) as remote:
            await remote.embed(["a"], PLAIN)
            server.script.append(refusal(401, "no"))
            with pytest.raises(BulkError) as refused:
                await remote.embed(["b"], PLAIN)
            return str(refused.value)

    assert " does not take the key that was sent: say one " in asyncio.run(main())
    assert server.keys == {"Bearer some-key"}


@pytest.mark.parametrize("header", ["x-embedsvc-truncated", "x-embedsvc-split"])
def test_a_header_that_is_no_number_ends_it(server: FakeServer, header: str) -> None:
    server.script.append((200, {header: "many"}, ONE))
    with pytest.raises(BulkError, match="no embeddings: "):
        embed(server, "a")


def test_an_answer_without_end_is_not_read_into_memory(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.bulk.remote.ANSWER_BYTES", 2 << 20)
    bomb = gzip.compress(b" " * (8 << 20))
    server.script.append((200, {"content-encoding": "gzip"}, bomb))
    with pytest.raises(BulkError, match=r"http://\S+ an answer of more than 2 MiB"):
        embed(server, "a")


def test_an_answer_that_cannot_be_unpacked_ends_it(server: FakeServer) -> None:
    server.script.append((200, {"content-encoding": "gzip"}, ONE))
    with pytest.raises(BulkError, match=r"http://\S+: .*"):
        embed(server, "a")


ONE = b'{"data": [{"index": 0, "embedding": [3, 4]}], "model": "one"}'
WIDER = b'{"data": [{"index": 0, "embedding": [3, 4, 5]}], "model": "one"}'
OTHER = b'{"data": [{"index": 0, "embedding": [3, 4]}], "model": "two"}'


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, WIDER, "dimensions was 2, is 3"),
        ({}, OTHER, "model was one, is two"),
        ({"openai-model": "two"}, ONE, "model was one, is two"),
        ({"x-embedsvc-fingerprint": "b"}, ONE, "fingerprint was None, is b"),
    ],
)
def test_a_server_that_changes_its_model_is_found_out(
    server: FakeServer, headers: dict[str, str], body: bytes, said: str
) -> None:
    server.script += [(200, {}, ONE), (200, {}, ONE), (200, headers, body)]

    async def main() -> None:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            remote = Remote(client, "m", 2)
            for _ in range(3):
                await remote.embed(["a"], EmbedOptions())

    with pytest.raises(BulkError, match=f"the server's model has changed: {said}"):
        asyncio.run(main())
    assert not server.script


def chunk_rows(*chunks: tuple[int, int, int]) -> bytes:
    """An answer of these chunks: the text's number, first and last character."""
    rows = [
        {
            "index": i,
            "embedding": [1],
            "chunk": {"input": text, "start": first, "end": last, "tokens": 1},
        }
        for i, (text, first, last) in enumerate(chunks)
    ]
    return json.dumps({"data": rows}).encode()


@pytest.mark.parametrize(
    "chunks",
    [
        [(0, 0, 3)],  # none of the second text
        [(0, 0, 3), (2, 0, 3)],
        [(-1, 0, 3), (0, 0, 3), (1, 0, 3)],
        [(1, 0, 3), (0, 0, 3)],
        [(0, 0, 3), (1, 2, 99)],
        [(0, -1, 3), (1, 0, 3)],
        [(0, 3, 2), (1, 0, 3)],
    ],
)
def test_chunks_that_are_not_of_the_texts_end_it(
    server: FakeServer, chunks: list[tuple[int, int, int]]
) -> None:
    how = EmbedOptions(chunking=Chunking(4))
    server.script.append((200, {}, chunk_rows((0, 0, 2), (0, 2, 3), (1, 0, 3))))
    assert [len(found) for found in embed(server, "one", "two", how=how)[0].chunks] == [2, 1]
    server.script.append((200, {}, chunk_rows(*chunks)))
    with pytest.raises(BulkError, match=r"no embeddings: a (chunk is not|text has no)"):
        embed(server, "one", "two", how=how)


def test_rows_are_put_in_their_order_and_floats_are_read(server: FakeServer) -> None:
    body = b'{"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]}'
    server.script.append((200, {}, body))
    assert embed(server, "a", "b")[0].vectors.tolist() == [[1, 2], [3, 4]]


def test_a_server_without_late_chunking_is_found_out(server: FakeServer) -> None:
    with pytest.raises(BulkError, match="the server does not do late chunking"):
        embed(server, "a", how=EmbedOptions(chunking=Chunking(4)))


def test_opening_a_server(server: FakeServer) -> None:
    async def main(url: str, model: str | None = None) -> str:
        async with open_remote(url, "secret", model, 2) as remote:
            before = remote.model
            await remote.embed(["a"], EmbedOptions())
            return f"{before} {remote.model}"

    assert asyncio.run(main(server.url)) == "fake fake"
    assert asyncio.run(main(f"{server.url}/embeddings", "alias")) == "alias fake"
    assert server.keys == {"Bearer secret"}
    assert server.requests[-1]["model"] == "alias"
    for wrong in (
        "127.0.0.1:8000",
        "ftp://host/v1",
        "http:///v1",
        "http://[::1/v1",
        "http://host:port/v1",
        "http://host:0/v1",
        "http://host:99999/v1",
        "http://\u2028/v1",
        f"http://{'a' * 64}/v1",
        "http://a\x1b/v1",
    ):
        with pytest.raises(BulkError, match=r"--url must be like http://127.0.0.1:8000/v1"):
            asyncio.run(main(wrong))
