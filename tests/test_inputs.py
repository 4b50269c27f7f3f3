"""Inputs in tokens: prompts, token ids, what is too long, and the vectors that come of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from embedsvc.catalog.cards import Truncate
from embedsvc.serving.averaging import average
from embedsvc.texts.cl100k import _table
from embedsvc.texts.inputs import Input, InputOptions, Tokenized, tokenize
from embedsvc.texts.item import TokenIds
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Rule
from tests.support.app import serve
from tests.support.embeddings import embed, vectors

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
