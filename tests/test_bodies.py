"""Bodies that come packed, or in pieces: read as they were meant, within bounds."""

import asyncio
import gzip
import json
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from embedsvc.bounds import ENCODINGS, MEMBERS
from embedsvc.errors import BadRequest, BodyTooLarge, ClientGone, RequestError, UnsupportedBody
from embedsvc.web.bodies import unpacking
from embedsvc.web.bodies.receive import receive_body
from embedsvc.web.budget import Budget
from tests.support.app import serve
from tests.support.bodies import LIMIT, TEXT, cut, read

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def deflated(data: bytes) -> bytes:
    """As RFC 1951 says alone, which some clients send as deflate."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", deflated),
    "zstd": ("zstd", zstd.compress),
    "identity": ("identity", bytes),
    "none": ("", bytes),
    "two": ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
    "three": (
        "deflate,identity, gzip ,deflate",
        lambda d: zlib.compress(gzip.compress(deflated(d))),
    ),
    "members": (
        "gzip",
        lambda d: b"".join(gzip.compress(d[i : i + 99]) for i in range(0, len(d), 99)),
    ),
    "frames": (
        "zstd",
        lambda d: b"".join(zstd.compress(d[i : i + 99]) for i in range(0, len(d), 99)),
    ),
    "filled up": ("gzip", lambda data: gzip.compress(data) + bytes(700)),
    "stored": ("deflate", lambda data: zlib.compress(data, 0)),
}
NOISE = random.Random(7).randbytes(3000) * 100


@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize(
    "content", [TEXT.encode(), NOISE, b" " * 1_000_000], ids=["text", "noise", "blank"]
)
def test_what_came_packed_is_read_as_it_was(how: str, content: bytes) -> None:
    name, pack = PACKERS[how]
    if how in ("members", "frames"):
        content = content[:30_000]
    packed = pack(content)
    assert read(packed, name) == content
    for size in (1, 7, 4096, 70_000):
        if len(packed) / size < 20_000:
            assert read(cut(packed, size), name) == content


def test_the_names_of_encodings_may_come_in_several_headers() -> None:
    with pytest.raises(BadRequest):
        read(gzip.compress(zlib.compress(b"{}")), "gzip, deflate")
    assert read(gzip.compress(zlib.compress(b"{}")), "deflate, gzip") == b"{}"


@pytest.mark.parametrize(
    "name", ["br", "compress", "gzip;q=1", "aes128gcm", "gzip gzip", "x" * 5000]
)
def test_an_encoding_that_is_not_read_is_a_415_that_names_those_that_are(
    client: TestClient, name: str
) -> None:
    answer = client.post("/v1/embeddings", content=b"x", headers={"content-encoding": name})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
    message = answer.json()["error"]["message"]
    assert name[:200] in message
    assert len(message) < 500


def test_there_are_no_encodings_without_end() -> None:
    packed = b"{}"
    for _ in range(ENCODINGS):
        packed = gzip.compress(packed)
    assert read(packed, ", ".join(["gzip"] * ENCODINGS)) == b"{}"
    with pytest.raises(UnsupportedBody, match=f"more than {ENCODINGS} encodings"):
        read(gzip.compress(packed), ", ".join(["gzip"] * (ENCODINGS + 1)))


PACKED = [how for how, (name, _) in PACKERS.items() if name not in ("", "identity")]
PARTS = ("members", "frames", "filled up")
"""Of which the first parts are whole without the last."""


@pytest.mark.parametrize("how", [how for how in PACKED if how not in PARTS])
def test_what_is_cut_off_is_a_400(how: str) -> None:
    name, pack = PACKERS[how]
    packed = pack(NOISE[:3000])
    for end in (*range(40), *range(40, len(packed) - 1, 97), len(packed) - 1):
        with pytest.raises(BadRequest, match="ends before its"):
            read(packed[:end], name)


@pytest.mark.parametrize("how", PACKED)
def test_what_is_damaged_is_a_400(how: str) -> None:
    name, pack = PACKERS[how]
    damaged = bytearray(pack(NOISE[:3000]))
    damaged[0] = 7  # nothing begins so
    garbage = (b"\xff\xff{}", b"\x1f\x8b\x08" + b"\xff" * 60, NOISE[:500], bytes(damaged))
    for sent in garbage:
        with pytest.raises(BadRequest, match=r"damaged|ends before its"):
            read(sent, name)


def test_what_follows_deflate_is_no_part_of_it() -> None:
    for packed in (zlib.compress(b"{}"), deflated(b"{}")):
        with pytest.raises(BadRequest, match="not deflate"):
            read(packed + b"{}", "deflate")
        with pytest.raises(BadRequest, match="not deflate"):
            read([packed, b"{}"], "deflate")


BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(300 * LIMIT))),
    "deflate": ("deflate", zlib.compress(bytes(300 * LIMIT))),
    "zstd": ("zstd", zstd.compress(bytes(300 * LIMIT))),
    "in another": ("gzip, gzip", gzip.compress(gzip.compress(bytes(300 * LIMIT)))),
    "on the way": ("gzip, zstd", zstd.compress(bytes(300 * LIMIT))),  # no gzip behind the first
}


@pytest.mark.parametrize("how", BOMBS)
def test_a_bomb_is_a_413_after_as_much_as_the_limit_was_unpacked(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    given: list[int] = []
    whole = unpacking.Deflated.feed, unpacking.Zstd.feed

    def counted(feed: Any) -> Any:
        def counting(self: object, data: bytes, *, last: bool) -> Any:
            for piece in feed(self, data, last=last):
                given.append(len(piece))
                yield piece

        return counting

    monkeypatch.setattr(unpacking.Deflated, "feed", counted(whole[0]))
    monkeypatch.setattr(unpacking.Zstd, "feed", counted(whole[1]))
    name, packed = BOMBS[how]
    with pytest.raises(BodyTooLarge if how != "on the way" else RequestError):
        read(cut(packed, 65536), name)
    assert max(given) <= unpacking.STEP  # in one turn
    assert sum(given) <= 2 * LIMIT + 2 * unpacking.STEP


def test_others_have_their_turns_while_a_body_is_unpacked() -> None:
    packed = gzip.compress(bytes(50 * unpacking.STEP))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": packed}

    async def main() -> None:
        other = asyncio.ensure_future(others())
        headers = [(b"content-encoding", b"gzip")]
        await receive_body({"headers": headers}, receive, 10**8, Budget(10**9))
        other.cancel()

    asyncio.run(main())
    assert turns >= 50


def test_a_body_is_not_made_of_parts_without_end() -> None:
    for name, part in (("gzip", gzip.compress(b"")), ("zstd", zstd.compress(b""))):
        assert read(part * MEMBERS, name) == b""
        with pytest.raises(BadRequest, match=f"more than {MEMBERS}"):
            read(part * (MEMBERS + 1), name)


def test_zstd_takes_no_window_larger_than_it_should() -> None:
    options = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.compression_level: 1,
    }
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"{}" * 200_000) + packer.flush()
    with pytest.raises(BadRequest):
        read(packed, "zstd")


def test_the_limit_is_of_what_is_handed_on() -> None:
    assert (
        len(read("ü".encode("latin-1") * 500, content_type="a/b; charset=latin1", limit=1000))
        == 1000
    )
    with pytest.raises(BodyTooLarge):
        read("ü".encode("latin-1") * 501, content_type="a/b; charset=latin1", limit=1000)
    for sent in (b"x" * 1001, [b"x" * 1000, b"x"]):
        with pytest.raises(BodyTooLarge):
            read(sent, limit=1000)
    assert read(b"x" * 1000, limit=1000) == b"x" * 1000


def test_a_client_that_leaves_in_the_middle_has_left() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(receive_body({"headers": []}, receive, LIMIT, Budget(LIMIT)))


@pytest.mark.parametrize("how", PACKERS)
def test_every_dialect_reads_packed_bodies(cards_file: Any, how: str) -> None:
    name, pack = PACKERS[how]
    sent = {
        "/v1/embeddings": {"model": "org/tiny", "input": "hello"},
        "/api/embed": {"model": "org/tiny", "input": "hello"},
        "/embed": {"inputs": "hello"},
        "/v2/embed": {
            "model": "org/tiny",
            "texts": ["hello"],
            "input_type": "search_query",
            "embedding_types": ["float"],
        },
        "/tokenize": {"inputs": "hello"},
    }
    with serve(models=cards_file) as client:
        for path, body in sent.items():
            packed = pack(json.dumps(body).encode())
            answer = client.post(path, content=packed, headers={"content-encoding": name})
            assert answer.status_code == 200, (path, answer.text)
