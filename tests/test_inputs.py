"""Inputs in tokens: prompts, token ids, what is too long, and late chunking."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient

from embedsvc.catalog.cards import Truncate
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.serving.averaging import average
from embedsvc.texts.cl100k import _table
from embedsvc.texts.inputs import Input, InputOptions, Tokenized, tokenize, tokenize_chunks
from embedsvc.texts.item import Item, TokenIds
from embedsvc.texts.requests import Chunking
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Rule
from tests.support.app import serve

CLS, SEP, A = 2, 3, 4  # and b is 5, c is 6, ...


@pytest.fixture(scope="module")
def tokenizer(tiny_folder) -> Tokenizer:
    return Tokenizer("tiny", tiny_folder, 10)  # room for eight


def letters(count: int) -> str:
    return " ".join(chr(ord("a") + i % 26) for i in range(count))


def read(
    tokenizer: Tokenizer, inputs: list[Input], *, truncate: Truncate = "error", **options: object
) -> Tokenized:
    return run_to_end(tokenize(tokenizer, inputs, InputOptions(rule=Rule(truncate), **options)))


def ids_of(found: Tokenized) -> list[TokenIds]:
    return [item.ids for item in found.items]


def ids(tokenizer: Tokenizer, value: Input, **options: object) -> list[list[int]]:
    return [text.tolist() for text in ids_of(read(tokenizer, [value], **options))]


@pytest.mark.parametrize(
    ("truncate", "expected"),
    [
        ("end", [[2, 4, 5, 6, 7, 8, 9, 10, 11, 3]]),
        ("start", [[2, 8, 9, 10, 11, 12, 13, 14, 15, 3]]),
        ("chunk", [[2, 4, 5, 6, 7, 8, 9, 10, 11, 3], [2, 11, 12, 13, 14, 15, 3]]),
    ],
)
def test_what_is_too_long_is_cut_or_split_and_keeps_its_special_tokens(
    tokenizer: Tokenizer, truncate: Truncate, expected: list[list[int]]
) -> None:
    found = read(tokenizer, ["a", letters(12)], truncate=truncate)
    assert [text.tolist() for text in ids_of(found)] == [[CLS, A, SEP], *expected]
    assert found.parts == [1, len(expected)]
    assert found.cut == (truncate != "chunk")


@pytest.mark.parametrize("truncate", ["error", "end", "start", "chunk"])
def test_what_just_fits_is_left_alone(tokenizer: Tokenizer, truncate: Truncate) -> None:
    found = read(tokenizer, [letters(8)], truncate=truncate)
    assert [text.tolist() for text in ids_of(found)] == [[CLS, *range(4, 12), SEP]]
    assert (found.parts, found.cut) == ([1], 0)


@pytest.mark.parametrize("truncate", ["end", "start", "chunk"])
def test_a_prompt_stays_in_every_part(tokenizer: Tokenizer, truncate: Truncate) -> None:
    prompt = [29, 29]
    for text in ids(tokenizer, letters(12), truncate=truncate, prompt="z z "):
        assert text[:3] == [CLS, *prompt]
        assert text[-1] == SEP
        assert len(text) <= 10


@given(
    count=st.integers(1, 100),
    truncate=st.sampled_from(["end", "start", "chunk"]),
    prompt=st.sampled_from(["", "z "]),
)
def test_parts_fit_and_cover_the_text(
    tokenizer: Tokenizer, count: int, truncate: Truncate, prompt: str
) -> None:
    parts = ids(tokenizer, letters(count), truncate=truncate, prompt=prompt)
    head = 2 if prompt else 1
    contents = [part[head:-1] for part in parts]
    assert all(0 < len(part) <= 10 for part in parts)
    whole = [4 + i % 26 for i in range(count)]
    if truncate == "end":
        assert contents == [whole[: 9 - head]]
    elif truncate == "start":
        assert contents == [whole[-(9 - head) :]]
    else:
        joined = contents[0]
        for content in contents[1:]:
            overlap = (9 - head) // 8
            assert content[:overlap] == joined[len(joined) - overlap :]
            joined = joined + content[overlap:]
        assert joined == whole


def test_cl100k_ids_are_their_text(tokenizer: Tokenizer) -> None:
    of = {token: i for i, token in _table().items()}
    value = [of[b"hello"], of[b" world"]]
    assert ids(tokenizer, value) == ids(tokenizer, "hello world")
    assert ids(tokenizer, value, prompt="a ") == ids(tokenizer, "a hello world")
    long = [of[b"a"], *[of[b" a"]] * 20]
    assert ids(tokenizer, long, truncate="end") == ids(tokenizer, "a " * 21, truncate="end")


def test_the_models_own_ids_are_taken_as_they_are(tokenizer: Tokenizer) -> None:
    assert ids(tokenizer, [A, 5, 31], token_ids="model") == [[A, 5, 31]]
    assert ids(tokenizer, list(range(20)), token_ids="model", truncate="start") == [
        list(range(10, 20))
    ]


def test_an_average_is_weighted_by_length_and_of_length_1() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    found = average(vectors, [3, 1, 9], [2, 1], normalize=True)
    assert np.allclose(found, [[3 / 10**0.5, 1 / 10**0.5], [0.6, 0.8]])
    assert found[1].tobytes() == vectors[2].tobytes()
    assert np.allclose(average(vectors, [3, 1, 9], [2, 1], normalize=False)[0], [0.75, 0.25])


def chunks(tokenizer: Tokenizer, text: str, wanted: object, prompt: str = ""):
    return run_to_end(tokenize_chunks(tokenizer, text, InputOptions(prompt), wanted))


def test_a_chunk_takes_the_tokens_that_begin_in_it(tokenizer: Tokenizer) -> None:
    text, told = chunks(tokenizer, "a b hello c", [(0, 3), (3, 5), (5, 11), (0, 11)])
    assert text.ids.tolist() == [CLS, 4, 5, 30, 6, SEP]
    assert text.spans == ((0, 3), (3, 4), (4, 6), (0, 6))
    assert [(c.start, c.end, c.tokens) for c in told][:2] == [(0, 3, 3), (3, 5, 1)]


def test_chunks_of_a_size_overlap_and_reach_the_end(tokenizer: Tokenizer) -> None:
    text, told = chunks(tokenizer, "a b c d e", Chunking(3, 1))
    assert text.spans == ((0, 4), (3, 7))
    assert [(c.start, c.end) for c in told] == [(0, 5), (4, 9)]
    text, told = chunks(tokenizer, "a b c d e", Chunking(100))
    assert text.spans == ((0, 7),)
    assert [(c.start, c.end, c.tokens) for c in told] == [(0, 9, 7)]


def test_a_prompt_is_part_of_the_first_chunk_only(tokenizer: Tokenizer) -> None:
    text, told = chunks(tokenizer, "a b", [(0, 1), (1, 3)], prompt="z z ")
    assert text.ids.tolist() == [CLS, 29, 29, 4, 5, SEP]
    assert text.spans == ((0, 4), (4, 6))
    assert [(c.start, c.end) for c in told] == [(0, 1), (1, 3)]


@given(text=st.text("ab 🙂ü", min_size=1, max_size=8), size=st.integers(1, 4), data=st.data())
def test_chunks_of_a_size_cover_the_text(
    tokenizer: Tokenizer, text: str, size: int, data: st.DataObject
) -> None:
    if not text.strip():
        return
    overlap = data.draw(st.integers(0, size - 1))
    spanned, told = chunks(tokenizer, text, Chunking(size, overlap))
    covered = {i for first, stop in spanned.spans for i in range(first, stop)}
    assert covered == set(range(len(spanned.ids)))
    again, _ = chunks(tokenizer, text, [(c.start, c.end) for c in told])
    assert len(again.spans) == len(spanned.spans)


# --- over HTTP ---------------------------------------------------------------------------------


def embed(client: TestClient, **fields: object):
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"} | fields)
    assert answer.status_code == 200, answer.text
    return answer


def vectors(client: TestClient, **fields: object) -> np.ndarray:
    return np.array([row["embedding"] for row in embed(client, **fields).json()["data"]])


def test_one_chunk_of_all_the_text_has_the_texts_own_vector(client: TestClient) -> None:
    text = "hello world a b c"
    whole = vectors(client, input=text)
    assert np.abs(vectors(client, input=text, chunks=[[0, len(text)]]) - whole).max() <= 1e-6
    assert np.abs(vectors(client, input=text, chunking={"size": 99}) - whole).max() <= 1e-6


def test_chunks_are_pooled_in_sight_of_the_whole_text(client: TestClient, tiny: Checkpoint) -> None:
    both = embed(
        client,
        input=["hello world a b", "a b"],
        chunks=[[[0, 11], [11, 15]], [[0, 3]]],
    ).json()
    assert both["usage"]["prompt_tokens"] == 6 + 4
    rows = both["data"]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["chunk"] for row in rows] == [
        {"input": 0, "start": 0, "end": 11, "tokens": 3},
        {"input": 0, "start": 11, "end": 15, "tokens": 3},
        {"input": 1, "start": 0, "end": 3, "tokens": 4},
    ]
    found = np.array([row["embedding"] for row in rows])
    # Not what the parts' own texts give: they see the rest.
    assert np.abs(found[0] - vectors(client, input="hello world")).max() > 1e-3
    # The mean of the parts' hidden states, weighted, is that of the whole.
    tokens = np.array([CLS, 30, 31, 4, 5, SEP], np.int32)
    encoder = load_encoder(NumpyOps(), tiny)
    assert np.abs(found[:2] - spans(encoder, Item(tokens, spans=((0, 3), (3, 6))))).max() <= 1e-6
    hidden = encoder.heads["spans"].forward(NumpyOps().batch([tokens]))[3:].mean(axis=0)
    assert np.abs(found[1] - hidden / np.linalg.norm(hidden)).max() <= 1e-6


def spans(encoder: Encoder, *items: Item) -> NDArray[np.float32]:
    return HEADS["spans"].unpack(encoder.run(items, "spans"), items)


def test_spans_are_pooled_alike_on_every_backend(ops: Ops, tiny: Checkpoint) -> None:
    encoder = load_encoder(ops, tiny)
    tokens = np.array([CLS, 30, 31, 4, 5, SEP], np.int32)
    spanned, part = Item(tokens, spans=((0, 6), (0, 2), (2, 6))), Item(tokens[:3], spans=((0, 3),))
    rows = spans(encoder, spanned, part)
    assert np.abs(rows[[0, 3]] - encoder.encode([tokens, tokens[:3]])).max() <= 1e-6
    expected = spans(load_encoder(NumpyOps(), tiny), spanned, part)
    assert np.abs(rows - expected).max() <= 1e-5


def test_the_cache_tells_spans_apart(client: TestClient) -> None:
    text = "hello world a b"
    plain = vectors(client, input=text)
    two = vectors(client, input=text, chunks=[[0, 6], [6, 15]])
    other = vectors(client, input=text, chunks=[[0, 12], [12, 15]])
    assert np.abs(two - other).max() > 1e-3
    assert vectors(client, input=text, chunks=[[0, 6], [6, 15]]).tolist() == two.tolist()
    assert vectors(client, input=text).tolist() == plain.tolist()
    metrics = client.get("/metrics").text
    assert 'embedsvc_cache_hits_total{model="org/tiny"} 2.0' in metrics


LONG = "a " * 40


@pytest.mark.parametrize(("truncate", "header"), [("end", "truncated"), ("start", "truncated")])
def test_a_cut_is_told_in_a_header_and_counted(
    client: TestClient, truncate: str, header: str
) -> None:
    answer = embed(client, input=["a", LONG, LONG], truncate=truncate)
    assert answer.headers["x-embedsvc-truncated"] == "2"
    assert answer.json()["usage"]["prompt_tokens"] == 3 + 32 + 32
    assert 'embedsvc_truncated_total{model="org/tiny"} 2.0' in client.get("/metrics").text
    assert "x-embedsvc-truncated" not in embed(client, input="a", truncate=truncate).headers


def test_a_split_text_has_the_weighted_mean_of_its_parts(client: TestClient) -> None:
    text = letters(40)  # 30 fit, the second part begins three earlier
    answer = embed(client, input=["a", text, "b"], truncate="chunk")
    assert answer.headers["x-embedsvc-split"] == "1"
    assert answer.json()["usage"]["prompt_tokens"] == 3 + 32 + 15 + 3
    rows = np.array([row["embedding"] for row in answer.json()["data"]])
    words = text.split()
    first, second = vectors(client, input=[" ".join(words[:30]), " ".join(words[27:])])
    expected = first * 32 + second * 15
    assert np.abs(rows[1] - expected / np.linalg.norm(expected)).max() <= 1e-6
    assert np.abs(rows[[0, 2]] - vectors(client, input=["a", "b"])).max() <= 1e-6


def test_ids_give_the_vector_of_their_text(client: TestClient) -> None:
    of = {token: i for i, token in _table().items()}
    one, two = [of[b"hello"], of[b" world"]], [of[b"a"]]
    found = vectors(client, input=[one, two], encoding_format="float")
    assert found.tolist() == vectors(client, input=["hello world", "a"]).tolist()
    assert vectors(client, input=one).tolist() == found[:1].tolist()


def test_dimensions_cut_and_renormalise(tmp_path, tiny_folder) -> None:
    (tmp_path / "models.toml").write_text(
        f"[models.\"org/tiny\"]\npath = '{tiny_folder}'\ndimensions = [4, 8]\n"
        f"[models.nomic]\npath = '{tiny_folder}'\ndimensions = [8]\nlayer_norm = true\n"
    )
    with serve(models=tmp_path / "models.toml") as client:
        whole = vectors(client)[0]
        for size in (4, 8, 16):
            expected = whole[:size] / np.linalg.norm(whole[:size])
            assert np.abs(vectors(client, dimensions=size)[0] - expected).max() <= 1e-6
        assert vectors(client, model="nomic").tolist() == [whole.tolist()]
        normed = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-12)
        expected = normed[:8] / np.linalg.norm(normed[:8])
        assert np.abs(vectors(client, model="nomic", dimensions=8)[0] - expected).max() <= 1e-6


def test_int8_and_bits_keep_what_is_near_near(client: TestClient) -> None:
    texts = ["hello world", "hello", "a b c d", "z y x"]
    exact = vectors(client, input=texts)
    int8 = vectors(client, input=texts, output_dtype="int8")
    assert np.abs(int8).max(axis=1).tolist() == [127] * 4
    scaled = int8 / np.linalg.norm(int8, axis=1, keepdims=True)
    assert np.abs(scaled @ scaled.T - exact @ exact.T).max() <= 0.02
    assert (vectors(client, input=texts, output_dtype="uint8") - 128).tolist() == int8.tolist()
    bits = vectors(client, input=texts, output_dtype="ubinary").astype(np.uint8)
    assert np.unpackbits(bits, axis=1).tolist() == (exact > 0).tolist()
    assert (vectors(client, input=texts, output_dtype="binary") + 128).tolist() == bits.tolist()
    several = embed(client, embedding_types=["float", "ubinary"]).json()["data"][0]["embedding"]
    assert json.loads(json.dumps(several)).keys() == {"float", "ubinary"}
