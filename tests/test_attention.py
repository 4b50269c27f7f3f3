"""Attention on each backend against one that computes a score at a time."""

import numpy as np
import pytest

from embedsvc.inference.ops.base import Attention, Ops, columns
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
