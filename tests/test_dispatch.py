"""No kernel on MLX does more than a bound, and what is done in parts is what it was."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.ops.base import Attention, columns
from embedsvc.inference.ops.mlx import MlxOps, bands, dispatch
from embedsvc.inference.ops.mlx.attention import attend
from embedsvc.inference.ops.mlx.layout import grid_shape, lay_out
from tests.support.attention import unpadded
from tests.support.tolerance import within

KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"causal": True},
    "window": {"window": 40},
    "causal window": {"window": 40, "causal": True},
    "window of most": {"window": 300},
    "shared keys": {"kv_heads": 1},
}


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those of each kernel of attention and of each linear layer, as they are asked for."""
    found: list[int] = []
    attention, linear = mx.fast.scaled_dot_product_attention, MlxOps.linear

    def noted_attention(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
        found.append(4 * q.size * k.shape[2])
        return attention(q, k, v, **options)

    def noted_linear(self: MlxOps, x: mx.array, layer: Any) -> mx.array:
        found.append(2 * x.shape[0] * layer.weight.size)
        return linear(self, x, layer)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", noted_attention)
    monkeypatch.setattr(MlxOps, "linear", noted_linear)
    return found


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda most: monkeypatch.setattr(dispatch, "MOST_OPERATIONS", most)


@pytest.mark.parametrize("banded", [True, False], ids=["bands", "no bands"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_in_parts_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    random: np.random.Generator,
    operations: list[int],
    bound: Callable[[int], None],
    kind: str,
    banded: bool,
) -> None:
    ops, spec = MlxOps("float32"), Attention(**{"heads": 2, "kv_heads": 2, **KINDS[kind]})
    batch = ops.batch([np.zeros(n, np.int32) for n in (300, 512)])
    qkv = ops.array(random.normal(size=(1024, 8 + 8 * spec.kv_heads)))
    q, k, v = columns(qkv, 8, 4 * spec.kv_heads, 4 * spec.kv_heads)
    monkeypatch.setattr(bands, "LEAST_BAND", 1 << 20)
    whole = unpadded(ops, ops.attention(q, k, v, spec, batch.layout), batch)
    monkeypatch.setattr(bands, "LEAST_BAND", 64 if banded else 1 << 20)
    operations.clear()
    bound(3 << 17)
    parts = unpadded(ops, ops.attention(q, k, v, spec, batch.layout), batch)
    assert np.abs(parts - whole).max() <= within(1e-5)
    assert len(operations) > 1
    assert max(operations) <= 3 << 17


@pytest.mark.parametrize("seen", [{}, {"causal": True}, {"window": 9000}], ids=str)
def test_parts_of_the_longest_texts_see_what_they_should(
    monkeypatch: pytest.MonkeyPatch,
    random: np.random.Generator,
    bound: Callable[[int], None],
    seen: dict[str, Any],
) -> None:
    """Of a text of 32760 tokens in 512 parts, some are computed, and some queries of each tried."""
    ops, spec = MlxOps("float32"), Attention(1, 1, scale=0.35, **seen)
    parts: list[mx.array] = []
    monkeypatch.setattr(mx, "async_eval", parts.append)
    bound(64 * 4 * 8 * 32768)
    tokens = 32760
    batch = ops.batch([np.zeros(tokens, np.int32)])
    qkv = random.normal(size=(32768, 24)).astype(np.float32)
    attend(*columns(ops.array(qkv), 8, 8, 8), spec, batch.layout)
    q, k, v = (x[:tokens].astype(np.float64) for x in columns(qkv, 8, 8, 8))
    for part in (0, 140, 511):
        found = np.array(parts[part])[0, :, 0]
        for row in (0, 31, 55):
            query = 64 * part + row
            first = 0 if spec.window is None else max(0, query - spec.window)
            stop = tokens if spec.window is None else query + spec.window + 1
            keys = slice(first, query + 1 if spec.causal else stop)
            weights = np.exp(k[keys] @ q[query] * spec.scale)
            assert np.abs(found[row] - weights @ v[keys] / weights.sum()).max() <= within(1e-6)


@pytest.mark.parametrize("spec", [Attention(32, 8), Attention(32, 8, causal=True)])
def test_the_longest_texts_of_large_models_stay_within_the_bound(
    monkeypatch: pytest.MonkeyPatch, operations: list[int], spec: Attention
) -> None:
    """Qwen3-Embedding-4B's attention to 32768 tokens is only written down here."""
    begun: list[mx.array] = []
    monkeypatch.setattr(mx, "async_eval", begun.append)
    batch = MlxOps("float16").batch([np.zeros(32768, np.int32)])
    q, k, v = (mx.zeros((32768, heads * 128), mx.float16) for heads in (32, 8, 8))
    assert attend(q, k, v, spec, batch.layout).shape == q.shape
    assert max(operations) <= dispatch.MOST_OPERATIONS
    whole = 4 * 32768**2 * 32 * 128
    assert sum(operations) == pytest.approx(whole * (0.5 if spec.causal else 1), rel=0.04)
    assert [part.shape[2:] for part in begun] == [(32, 128)] * len(operations)
    assert sum(part.shape[1] for part in begun) == 32768


def test_scores_that_go_through_memory_are_bounded_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EmbeddingGemma's heads of 256 have no fused attention on Metal."""
    scores: list[int] = []

    def noted(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
        scores.append(q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2])
        return q

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", noted)
    monkeypatch.setattr(mx, "async_eval", lambda _: None)
    batch = MlxOps("float16").batch([np.zeros(2048, np.int32)] * 32)
    for size, window in ((256, None), (256, 256), (256, 1000), (64, None)):
        q = mx.zeros((65536, 3 * size), mx.float16)
        scores.clear()
        attend(q, q, q, Attention(3, 3, window=window), batch.layout)
        assert (max(scores) <= dispatch.MOST_NUMBERS) == (size == 256)


def test_parts_are_not_begun_while_a_pass_is_compiled(
    monkeypatch: pytest.MonkeyPatch, bound: Callable[[int], None]
) -> None:
    bound(1 << 17)
    monkeypatch.setattr(mx, "async_eval", lambda _: pytest.fail("it is not run yet"))
    q = mx.zeros((512, 8))
    layout = lay_out((mx.zeros((1, 512), mx.int32),), mx.float32).layout
    assert attend(q, q, q, Attention(2, 2), layout).shape == (512, 8)


def test_rows_go_through_layers_in_parts(
    random: np.random.Generator, operations: list[int], bound: Callable[[int], None]
) -> None:
    ops = MlxOps("float32")
    narrow = ops.linear_layer(random.normal(size=(4, 8)), None)
    wide = ops.linear_layer(random.normal(size=(40, 8)), np.arange(40.0))
    x = ops.array(random.normal(size=(1000, 8)))

    def function(x: mx.array) -> tuple[mx.array, mx.array]:
        return ops.linear(x, narrow), ops.linear(x, wide)

    whole = ops.rows(function, x)
    operations.clear()
    bound(200_000)  # 312 rows of the wide one: parts of 256, the last of 232
    parts = ops.rows(function, x)
    assert [n // (2 * 8 * 40) for n in operations[1::2]] == [256, 256, 256, 232]
    assert max(operations) <= 200_000
    for found, expected in zip(parts, whole, strict=True):
        assert np.abs(ops.to_numpy(found) - ops.to_numpy(expected)).max() <= within(1e-5)


def test_experts_take_rows_in_parts(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, bound: Callable[[int], None]
) -> None:
    ops = MlxOps("float32")
    layer = ops.experts_layer(random.normal(size=(3, 5, 4)), random.normal(size=(3, 4, 5)))
    x, scores = ops.array(random.normal(size=(200, 4))), ops.array(random.normal(size=(200, 3)))
    whole = ops.to_numpy(ops.experts(x, scores, 2, layer))
    taken: list[int] = []
    product = mx.gather_mm

    def noted(rows: mx.array, *rest: Any, **options: Any) -> mx.array:
        taken.append(rows.shape[0])
        return product(rows, *rest, **options)

    monkeypatch.setattr(mx, "gather_mm", noted)
    bound(64 * 2 * 2 * 4 * 5)
    assert np.abs(ops.to_numpy(ops.experts(x, scores, 2, layer)) - whole).max() <= within(1e-6)
    assert taken == [128, 128, 128, 128, 128, 128, 16, 16]


def test_a_batch_of_bert_large_is_not_cut() -> None:
    """What is read in parts is written once more, so that cutting is for what needs it."""
    assert dispatch.at_once(2 * 1024 * 4096) == 1 << 16
    assert grid_shape(1, 32768) == (1, 32768)
