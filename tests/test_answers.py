"""Answers are bounded, written in turns of the event loop, and kept once: on every route."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.bounds import CHUNK_TOKENS, CHUNKS, VECTOR_BYTES
from embedsvc.errors import BadRequest
from embedsvc.texts.item import Item
from embedsvc.texts.late_chunking import Tally
from embedsvc.texts.requests import COMPONENT_TYPES
from embedsvc.web import answers
from embedsvc.web.answers import BYTES, ROW, Form, join_in_turns, most_rows, write_vectors
from embedsvc.web.budget import InFlight, in_flight
from embedsvc.web.dialects import openai_answer
from embedsvc.web.dialects.openai_answer import write_embeddings
from embedsvc.web.dialects.openai_schema import ChunkRow
from embedsvc.web.endpoint import JsonResponse
from embedsvc.web.token_answers import TokenDtype, in_base64, written
from tests.support.app import serve

FORMS: list[Form] = [(dtype, form) for dtype in COMPONENT_TYPES for form in ("float", "base64")]
Write = Callable[[np.ndarray], Awaitable[list[bytes]]]
WRITERS: dict[str, Write] = {
    "openai": lambda vectors: write_embeddings(vectors, model="m", tokens=1),
    "others": write_vectors,
}


def unit(rows: int, dimensions: int) -> np.ndarray:
    vectors = np.random.default_rng(7).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def turns(work: Awaitable[Any]) -> int:
    """How often others had a turn until the work was done."""
    count = 0
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    await task
    return count


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_others_have_a_turn_after_so_many_components(write: Write) -> None:
    async def main() -> None:
        assert await turns(write(unit(3, 16))) <= 2
        assert await turns(write(unit(60, 16 << 10))) >= 60
        assert await turns(write(unit(3000, 384))) >= 3000 * 384 // answers.COMPONENTS

    asyncio.run(main())


def test_however_many_are_answered_others_wait_for_a_piece_of_one_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    whole = openai_answer.write_rows

    def write(*given: Any, **how: Any) -> bytes:
        happened.append("piece")
        return whole(*given, **how)

    async def others() -> None:
        while True:
            happened.append("others")
            await asyncio.sleep(0)

    async def main() -> None:
        in_flight.set(InFlight(bodies=1 << 20, answers=1 << 30))
        vectors = np.ones((400, 384), np.float32)
        turns = asyncio.create_task(others())
        writing = [write_embeddings(vectors, model="m", tokens=1) for _ in range(20)]
        written = await asyncio.gather(*writing)
        turns.cancel()
        assert len({b"".join(pieces) for pieces in written}) == 1

    monkeypatch.setattr(openai_answer, "write_rows", write)
    asyncio.run(main())
    assert happened.count("piece") > 100
    assert ("piece", "piece") not in set(pairwise(happened))


def test_what_is_written_in_turns_is_what_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = unit(7, 9)
    chunks = [ChunkRow(0, i, i + 1, 1) for i in range(7)]

    def written() -> list[Any]:
        works = [
            write_embeddings(vectors, model="m", tokens=1, dtypes=["int8", "float"], chunks=chunks),
            *(write_vectors(vectors, *form) for form in FORMS),
        ]
        return [json.loads(b"".join(asyncio.run(work))) for work in works]

    at_once = written()
    for most in (1, 18, 27):
        monkeypatch.setattr(answers, "COMPONENTS", most)
        assert written() == at_once


@pytest.mark.parametrize("form", FORMS)
def test_what_a_component_takes_is_known_before_it_is_written(form: Form) -> None:
    vectors = unit(20, 2048)
    work = write_embeddings(vectors, model="m", tokens=1, dtypes=form[0], encoding_format=form[1])
    size = sum(map(len, asyncio.run(work)))
    expected = 20 * (ROW + 2048 * BYTES[form[0]][form[1] == "base64"])
    assert 0.7 * expected < size < 1.01 * expected


def test_openais_inputs_with_the_largest_model_s_dimensions_have_room_in_an_answer() -> None:
    assert most_rows(4096, [("float", "float")]) >= 2048
    assert most_rows(1, [("ubinary", "base64")]) <= VECTOR_BYTES // ROW
    assert most_rows(4096, FORMS) < most_rows(4096, FORMS[:1])


def test_of_a_long_answer_there_is_one_copy() -> None:
    vectors = unit(1500, 1024)

    async def main() -> tuple[int, int]:
        sent = 0
        held: list[int] = []

        async def send(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            held.append(tracemalloc.get_traced_memory()[0])

        response = JsonResponse(await write_embeddings(vectors, model="m", tokens=1))
        scope = {"type": "http"}
        await response(scope, None, send)  # type: ignore[arg-type]
        length = dict(response.raw_headers)[b"content-length"]
        assert sent == int(length)
        assert held[-1] - held[0] < -0.9 * sent  # what was sent is not kept
        return sent, tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    size, peak = asyncio.run(main())
    tracemalloc.stop()
    assert size > 15_000_000
    assert peak < 1.2 * size


@pytest.mark.parametrize("dtype", [None, "float16", "float32"])
def test_a_text_s_vectors_of_tokens_are_written_in_turns(dtype: TokenDtype | None) -> None:
    vectors = unit(4001, 130)

    async def main() -> Any:
        texts = (written(each, dtype) for each in (vectors, vectors[:1], vectors[:0]))
        pieces = await join_in_turns(texts)
        assert max(map(len, pieces)) < 1.5 * answers.TURN_BYTES
        return json.loads(b"[" + b"".join(pieces) + b"]")

    whole, one, none = asyncio.run(main())
    if dtype is None:
        assert np.array_equal(np.array(whole, np.float32), vectors)
        assert (len(one), none) == (1, [])
    else:
        assert [whole, one, none] == [in_base64(vectors[:n], dtype) for n in (4001, 1, 0)]


# --- what may be asked for ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("answers") / "models.toml"
    file.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    with serve(models=file) as client:
        yield client


def refused(client: TestClient, path: str, **body: object) -> str:
    answer = client.post(path, json={"model": "tiny"} | body)
    assert answer.status_code == 400, answer.text[:200]
    said = answer.json()
    return said["message"] if "message" in said else said["error"]["message"]


def test_each_type_may_be_asked_for_once(client: TestClient) -> None:
    for path, inputs in (("/v1/embeddings", {"input": "a"}), ("/v2/embed", {"texts": ["a"]})):
        twice = ["int8", "float", "int8"]
        said = refused(client, path, embedding_types=twice, **inputs)
        assert said == "Invalid 'embedding_types': expected each type once."
        said = refused(client, path, embedding_types=["int8"] * 60_000, **inputs)
        assert said.startswith("Invalid 'embedding_types': expected a list of length <= ")


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "VECTOR_BYTES", 3 * (ROW + 16 * 13))
    texts = [f"{a} too large" for a in "abcd"]
    said = "in the form that is asked for, an answer has 3 vectors of 16 dimensions at most."
    assert refused(client, "/v1/embeddings", input=texts) == f"Invalid 'input': {said}"
    assert refused(client, "/v2/embed", texts=texts) == f"Invalid 'texts': {said}"
    for path, field in (("/api/embed", "input"), ("/embed", "inputs")):
        answer = client.post(path, json={"model": "tiny", field: texts})
        assert (answer.status_code, answer.json()["error"]) == (400, f"Invalid '{field}': {said}")
    both = ["float", "int8"]
    said = refused(client, "/v1/embeddings", input=texts[:3], embedding_types=both)
    assert "an answer has 2 vectors" in said
    said = refused(client, "/v1/embeddings", input="a b c d e", chunking={"size": 2, "overlap": 1})
    assert said == "Too many chunks: one answer has 3 of them at most."
    assert 'embedsvc_texts_total{model="tiny"} 0.0' in client.get("/metrics").text
    small = {"model": "tiny", "input": texts, "encoding_format": "base64"}
    assert client.post("/v1/embeddings", json=small).status_code == 200


def test_chunks_of_a_request_are_bounded(client: TestClient) -> None:
    said = refused(client, "/v1/embeddings", input="hello", chunks=[[0, 5]] * (CHUNKS + 1))
    assert said == f"Invalid 'chunks': expected a list of length <= {CHUNKS}."
    half = [[0, 5]] * (CHUNKS // 2 + 1)
    said = refused(client, "/v1/embeddings", input=["hello"] * 2, chunks=[half, half])
    assert said == f"Invalid 'chunks': they are {CHUNKS + 2}, and {CHUNKS} at most."
    for wrong in ([[0, 10**4000]], [[-(2**40), 5]], [[0.0, 5]], [[False, True]], [["0", 5]]):
        said = refused(client, "/v1/embeddings", input="hello", chunks=wrong)
        assert said.startswith("Invalid 'chunks")
        assert len(said) < 200


def test_what_chunks_overlap_in_is_bounded() -> None:
    ids = np.zeros(8000, np.int32)
    tally = Tally(CHUNKS)
    whole = Item(ids, spans=((0, 8000),) * (CHUNK_TOKENS // 8000))
    tally.add(whole)
    with pytest.raises(BadRequest, match=f"chunks of one request have {CHUNK_TOKENS} tokens"):
        tally.add(Item(ids, spans=((0, 1),)))


def test_the_cache_s_key_of_many_spans_is_linear_in_them() -> None:
    """A hundred thousand take a moment; were it quadratic, this test would not end in time."""
    ids = np.arange(9, dtype=np.int32)
    spans = tuple((i, i + 1) for i in range(1_000_000))
    keys = {Item(ids, spans=some).key("spans") for some in (spans, spans[:-1], spans[:1])}
    assert len(keys) == 3
