"""Late chunking: the tokens of each chunk, and its vector in sight of the whole text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.testclient import TestClient

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.inputs import InputOptions, tokenize_chunks
from embedsvc.texts.item import Item
from embedsvc.texts.requests import Chunking
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.embeddings import embed, vectors
from tests.support.tolerance import within

CLS, SEP = 2, 3  # and a is 4, b is 5, ...


@pytest.fixture(scope="module")
def tokenizer(tiny_folder) -> Tokenizer:
    return Tokenizer("tiny", tiny_folder, 10)  # room for eight


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
    assert np.abs(rows[[0, 3]] - encoder.encode([tokens, tokens[:3]])).max() <= within(1e-6, ops)
    expected = spans(load_encoder(NumpyOps(), tiny), spanned, part)
    assert np.abs(rows - expected).max() <= within(1e-5, ops)


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
