"""Attention on each backend against one that computes a score at a time."""

import numpy as np
import pytest

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.base import Array, Batch, Ops, Read, columns
from embedsvc.inference.ops.layers import Attention
from tests.support.attention import SPECS, attend, unpadded
from tests.support.tolerance import within


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("lengths", [[1], [3, 3, 3], [2, 5, 5, 17], [16, 16], [1, 40]])
def test_attention_stays_within_a_text_and_its_kind(
    ops: Ops, lengths: list[int], kind: str, random: np.random.Generator
) -> None:
    heads, size = 2, 4
    kv_heads, rest = SPECS[kind]
    bias = ops.array(random.normal(size=(heads, 2 * 40 - 1))) if "bias" in rest else None
    spec = Attention(heads, kv_heads, **rest | {"bias": bias})
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    rows = ops.to_numpy(batch.ids).shape[0]
    widths = (heads * size, kv_heads * size, kv_heads * size)
    qkv = random.normal(size=(rows, sum(widths))).astype(np.float32)
    texts = np.split(unpadded(ops, ops.array(qkv), batch), np.cumsum(lengths)[:-1])
    expected = [attend(*columns(text, *widths), spec) for text in texts]
    found = ops.attention(*columns(ops.array(qkv.copy()), *widths), spec, batch.layout)
    assert np.abs(unpadded(ops, found, batch) - np.concatenate(expected)).max() <= within(2e-6, ops)
    assert np.isfinite(ops.to_numpy(found)).all(), "padding that is not finite spreads"


@pytest.mark.parametrize(
    "spec",
    [Attention(2, 2), Attention(2, 1, scale=0.5), Attention(2, 2, window=30)],
    ids=str,
)
@pytest.mark.parametrize(
    "lengths", [[(1, 1)], [(32, 5), (32, 5), (32, 9)], [(3, 3), (32, 4), (40, 40)], [(70, 60)]]
)
def test_tokens_may_attend_to_the_first_of_their_text_alone(
    ops: Ops, lengths: list[tuple[int, int]], spec: Attention, random: np.random.Generator
) -> None:
    texts, width = [np.zeros(n, np.int32) for n, _ in lengths], 4 * spec.kv_heads
    batch = ops.batch(texts, seen=[seen for _, seen in lengths])
    qkv = random.normal(size=(ops.to_numpy(batch.ids).shape[0], 8 + 2 * width)).astype(np.float32)
    rows = np.split(
        unpadded(ops, ops.array(qkv), batch), np.cumsum([length for length, _ in lengths])[:-1]
    )
    expected = [
        attend(*columns(own, 8, width, width), spec, seen)
        for own, (_, seen) in zip(rows, lengths, strict=True)
    ]

    def function(ops: Ops, batch: Batch) -> Array:
        qkv_of = ops.embedding(table, batch.ids)
        q, k, v = columns(qkv_of, 8, width, width)
        return ops.attention(q, k, v, spec, batch.layout)

    found = ops.attention(*columns(ops.array(qkv.copy()), 8, width, width), spec, batch.layout)
    assert np.abs(unpadded(ops, found, batch) - np.concatenate(expected)).max() <= within(2e-6, ops)
    assert np.isfinite(ops.to_numpy(found)).all()
    table = ops.table(np.concatenate(rows))
    numbered = np.split(np.arange(sum(map(len, texts)), dtype=np.int32), _ends(texts))
    whole = ops.batch(numbered, seen=[seen for _, seen in lengths])
    found = ops.compiled(function)(whole)
    assert np.abs(unpadded(ops, found, whole) - np.concatenate(expected)).max() <= within(2e-6, ops)


def test_texts_of_which_a_token_sees_none_are_refused(ops: Ops) -> None:
    def function(ops: Ops, batch: Batch) -> Array:
        x = ops.embedding(table, batch.ids)
        return ops.attention(x, x, x, Attention(1, 1, window=4), batch.layout)

    table = ops.table(np.zeros((1, 4), np.float32))
    texts = [np.zeros(9, np.int32)]
    ops.compiled(function)(ops.batch(texts, seen=[5]))
    for seen in ([0], [10], [1, 1], []):
        with pytest.raises(ValueError, match="one token or more is seen"):
            ops.batch(texts, seen=seen)
    if ops.name != "mlx":  # where such a token sees itself
        with pytest.raises(EmbeddingFailed, match="Of a text's tokens 4"):
            ops.compiled(function)(ops.batch(texts, seen=[4]))


def _ends(texts: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([len(text) for text in texts])[:-1]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("read", ["cls", "last_token"])
@pytest.mark.parametrize("seen", [None, [1, 3, 5, 9, 33]], ids=["all seen", "first seen"])
def test_one_query_of_each_text_sees_what_it_sees_among_all(
    ops: Ops, read: Read, kind: str, seen: list[int] | None, random: np.random.Generator
) -> None:
    heads, size, lengths = 2, 24, [1, 5, 5, 17, 40]
    kv_heads, rest = SPECS[kind]
    if "window" in rest:
        seen = None
    bias = ops.array(random.normal(size=(heads, 2 * 40 - 1))) if "bias" in rest else None
    spec = Attention(heads, kv_heads, **rest | {"bias": bias})
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths], seen=seen)
    rows = ops.to_numpy(batch.ids).shape[0]
    widths = (heads * size, kv_heads * size, kv_heads * size)
    qkv = random.normal(size=(rows, sum(widths))).astype(np.float32)
    texts = np.split(unpadded(ops, ops.array(qkv), batch), np.cumsum(lengths)[:-1])
    row = -1 if read == "last_token" else 0
    expected = [
        attend(*columns(text, *widths), spec, first)[row]
        for text, first in zip(texts, seen or lengths, strict=True)
    ]
    q, k, v = columns(ops.array(qkv.copy()), *widths)
    q = ops.pool(q, batch.layout, [read])
    found = ops.to_numpy(ops.attention(q, k, v, spec, batch.layout, read))
    assert np.abs(found[: len(lengths)] - np.stack(expected)).max() <= within(2e-6, ops)
    assert np.isfinite(found).all(), "padding that is not finite spreads"


def test_long_texts_see_what_they_should(
    monkeypatch: pytest.MonkeyPatch, ops: Ops, random: np.random.Generator
) -> None:
    monkeypatch.setattr("embedsvc.inference.ops.mlx.dispatch.MOST_NUMBERS", 1 << 10)
    monkeypatch.setattr("embedsvc.inference.ops.numpy.attention.SMALL_PRODUCT", 1 << 8)
    bias = ops.array(random.normal(size=(2, 2 * 96 - 1)))
    batch = ops.batch([np.zeros(n, np.int32) for n in (50, 90)])
    rows = ops.to_numpy(batch.ids).shape[0]
    qkv = random.normal(size=(rows, 12)).astype(np.float32)
    texts = np.split(unpadded(ops, ops.array(qkv), batch), [50])
    for spec in (
        Attention(2, 2, bias=bias),
        Attention(2, 2, window=7),
        Attention(2, 2, causal=True),
        Attention(2, 2, causal=True, window=70, bias=bias),
    ):
        expected = np.concatenate([attend(*columns(text, 4, 4, 4), spec) for text in texts])
        found = ops.attention(*columns(ops.array(qkv.copy()), 4, 4, 4), spec, batch.layout)
        assert np.abs(unpadded(ops, found, batch) - expected).max() <= within(2e-6, ops)


@pytest.mark.parametrize("size", [30.0, 1000.0, -1000.0])
def test_attention_holds_where_scores_are_huge(ops: Ops, size: float) -> None:
    batch = ops.batch([np.zeros(3, np.int32)])
    rows = ops.to_numpy(batch.ids).shape[0]
    qkv = np.ones((rows, 3), dtype=np.float32)
    qkv[:, 1] = size * np.arange(rows)  # keys: the last (or, negated, the first) takes it all
    qkv[:, 2] = np.arange(rows)
    context = ops.attention(*columns(ops.array(qkv), 1, 1, 1), Attention(1, 1), batch.layout)
    found = unpadded(ops, context, batch)
    assert np.abs(found - (2 if size > 0 else 0)).max() <= within(1e-6, ops)
