"""Each operation on each backend against plain float64 NumPy."""

import math
import os
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.checkpoint import Checkpoint
from embedsvc.encoder import load_encoder
from embedsvc.ops.base import Norm, Ops
from embedsvc.ops.mlx import MlxOps
from embedsvc.ops.numpy import ROWS, NumpyOps

RANDOM = np.random.default_rng(3)


def close(ops: Ops, value: object, expected: np.ndarray, bound: float = 2e-6) -> None:
    found = ops.to_numpy(value)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound


def unpadded(ops: Ops, value: object, lengths: list[int]) -> np.ndarray:
    """Rows of real tokens only, whatever the backend's layout."""
    rows = ops.to_numpy(value)
    if ops.grid is None:
        return rows
    grid = rows.reshape(*ops.grid(len(lengths), max(lengths)), rows.shape[-1])
    return np.concatenate([text[:n] for text, n in zip(grid, lengths, strict=False)])


def test_gelu_is_the_exact_one(ops: Ops) -> None:
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)
    expected = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    close(ops, ops.gelu(ops.array(x.copy())), expected, bound=1e-6)


def test_gelu_of_huge_values_is_finite(ops: Ops) -> None:
    x = np.array([-1e30, -1e4, 0.0, 1e4, 1e30], dtype=np.float32)
    assert ops.to_numpy(ops.gelu(ops.array(x.copy()))).tolist() == [0, 0, 0, *x[3:].tolist()]


def test_layer_norm(ops: Ops) -> None:
    x = RANDOM.normal(3, 2, (5, 16))
    weight, bias = RANDOM.normal(size=(2, 16))
    norm = Norm(ops.array(weight), ops.array(bias))
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    expected = (x - x.mean(axis=1, keepdims=True)) / deviation * weight + bias
    close(ops, ops.layer_norm(ops.array(x), norm, 1e-5), expected)


@pytest.mark.parametrize("biased", [True, False])
def test_linear(ops: Ops, biased: bool) -> None:
    x, weight, bias = RANDOM.normal(size=(7, 16)), RANDOM.normal(size=(5, 16)), np.arange(5.0)
    layer = ops.linear_layer(weight, bias if biased else None)
    expected = x @ weight.T + (bias if biased else 0)
    close(ops, ops.linear(ops.array(x), layer), expected, bound=1e-5)


def test_rows_gives_every_row_to_the_function_once(ops: Ops) -> None:
    count = 3 * ROWS + 1
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    found = ops.rows(ops.add, ops.array(x.copy()), ops.array(x))
    close(ops, found, 2.0 * x, bound=0)


@pytest.mark.parametrize("lengths", [[1], [5], [3, 3, 3], [2, 5, 5, 17], [16, 16], [1, 40]])
def test_attention_and_pooling_stay_within_a_text(ops: Ops, lengths: list[int]) -> None:
    heads, size = 2, 4
    width = heads * size
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    rows = ops.to_numpy(batch.ids).shape[0]
    qkv = RANDOM.normal(size=(rows, 3 * width)).astype(np.float32)
    real = unpadded(ops, ops.array(qkv), lengths)
    expected, pooled = [], []
    for text in np.split(real.astype(np.float64), np.cumsum(lengths)[:-1]):
        q, k, v = text.reshape(-1, 3, heads, size).transpose(1, 2, 0, 3)
        scores = np.exp(q @ k.transpose(0, 2, 1))
        scores /= scores.sum(axis=-1, keepdims=True)
        expected.append((scores @ v).transpose(1, 0, 2).reshape(-1, width))
        pooled.append((text.mean(axis=0), text.max(axis=0), text[0], text[-1]))
    found = ops.attention(ops.array(qkv.copy()), heads, batch.layout)
    assert np.abs(unpadded(ops, found, lengths) - np.concatenate(expected)).max() <= 2e-6
    segments = (ops.segment_mean, ops.segment_max, ops.segment_first, ops.segment_last)
    for segment, wanted in zip(segments, zip(*pooled, strict=True), strict=True):
        close(ops, segment(ops.array(qkv), batch.layout)[: len(lengths)], np.stack(wanted))


@pytest.mark.parametrize("switch", ["pad_heads", "plain"])
def test_attention_is_the_same_whichever_way_is_faster(switch: str) -> None:
    ops, other = MlxOps("float32"), MlxOps("float32")
    setattr(other, switch, True)
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in (3, 9)])
    qkv = ops.array(RANDOM.normal(size=(32, 3 * 8)))
    expected, found = (ops.to_numpy(o.attention(qkv, 2, batch.layout)) for o in (ops, other))
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("lengths", [[16, 16], [3, 9], [1], [2, 2, 2]])
def test_a_compiled_pass_gives_the_same(tiny: Checkpoint, lengths: list[int]) -> None:
    ops = MlxOps("float32")
    encoder = load_encoder(ops, tiny)
    texts = [RANDOM.integers(0, 30, n).astype(np.int32) for n in lengths]
    expected = encoder.encode(texts)
    ops.compile = True
    assert np.abs(encoder.encode(texts) - expected).max() <= 1e-6


@pytest.mark.parametrize(("metal", "tried"), [(True, "pad_heads"), (False, "plain")])
def test_a_switch_is_kept_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, metal: bool, tried: str
) -> None:
    ops = MlxOps("float32")
    now = 0.0

    def encode() -> None:
        nonlocal now
        now += 2.0 - 0.5 * ops.pad_heads - 0.5 * ops.plain + 0.5 * ops.compile

    monkeypatch.setattr("embedsvc.ops.mlx.time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    ops.gpu = True
    ops.tune(encode)
    assert (ops.pad_heads, ops.plain, ops.compile) == (
        tried == "pad_heads",
        tried == "plain",
        False,
    )


def test_shapes_are_few_and_padding_is_little() -> None:
    grid = MlxOps("float32").grid
    shapes = {grid(texts, longest) for texts in range(1, 257) for longest in range(1, 513)}
    assert len(shapes) == 9 * 24  # of 256 * 512
    for texts, longest in ((1, 1), (2, 16), (3, 17), (100, 129), (1, 257), (1, 500), (1, 8191)):
        rows, length = grid(texts, longest)
        assert texts <= rows < 2 * texts
        assert longest <= length < longest + max(16, longest / 8)
        assert length % 16 == 0
        assert grid(rows, length) == (rows, length)


def test_float32_is_not_rounded_and_new_shapes_are_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", {"MLX_ENABLE_TF32": "1"})
    MlxOps("float32")
    assert os.environ == {"MLX_ENABLE_TF32": "1", "MLX_ENABLE_CACHE_THRASHING_CHECK": "0"}


def test_padding_is_at_a_position_that_every_model_has(ops: Ops) -> None:
    batch = ops.batch([np.array([7] * 17, np.int32), np.array([9], np.int32)])
    positions = ops.to_numpy(batch.positions)
    assert positions.max() == 16
    assert positions.sum() == 16 * 17 / 2


@pytest.mark.parametrize(
    ("metal", "memory", "tokens"), [(True, 8, 8192), (False, 24, 24576), (False, 140, 65536)]
)
def test_the_largest_batch_fits_the_memory_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, metal: bool, memory: int, tokens: int
) -> None:
    info = {"device_name": "G", "memory_size" if metal else "total_memory": memory << 30}
    limits: list[int] = []
    for name, value in (
        ("set_default_device", lambda _: None),
        ("is_available", lambda _: True),
        ("device_info", lambda _: info),
        ("set_cache_limit", limits.append),
    ):
        monkeypatch.setattr(mx, name, value)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    ops = MlxOps()
    assert (ops.dtype, ops.max_batch_tokens, limits) == ("float16", tokens, [memory << 27])
    assert ops.device == f"G ({'Metal' if metal else 'CUDA'})"


@pytest.mark.parametrize("lengths", [[48], [49], [40, 300], [700]])
def test_a_batch_on_several_cores_gives_the_same(lengths: list[int]) -> None:
    ops = NumpyOps(cores=3)
    qkv = RANDOM.normal(size=(sum(lengths), 3 * 8)).astype(np.float32)
    batch = ops.batch([np.zeros(n, np.int32) for n in lengths])
    layer = ops.linear_layer(RANDOM.normal(size=(5, 24)), None)

    def work() -> tuple[int, np.ndarray, np.ndarray]:
        rows = ops.rows(lambda x: ops.linear(x, layer), qkv)
        return ops._cores.width, rows, ops.attention(qkv.copy(), 2, batch.layout)

    width, rows, attention = ops.run(work, sum(lengths))
    one, expected_rows, expected_attention = ops.run(work, 0)
    assert (width, one) == (3, 1)
    assert np.abs(rows - expected_rows).max() <= 1e-5
    assert np.abs(attention - expected_attention).max() <= 1e-6


@pytest.mark.parametrize("size", [30.0, 1000.0, -1000.0])
def test_attention_holds_where_scores_are_huge(ops: Ops, size: float) -> None:
    batch = ops.batch([np.zeros(3, np.int32)])
    rows = ops.to_numpy(batch.ids).shape[0]
    qkv = np.ones((rows, 3), dtype=np.float32)
    qkv[:, 1] = size * np.arange(rows)  # keys: the last (or, negated, the first) takes it all
    qkv[:, 2] = np.arange(rows)
    found = unpadded(ops, ops.attention(ops.array(qkv), 1, batch.layout), [3])
    assert np.abs(found - (2 if size > 0 else 0)).max() <= 1e-6


def test_positions_begin_anew_with_every_text(ops: Ops) -> None:
    batch = ops.batch([np.array([7, 8], np.int32), np.array([9, 9, 9], np.int32)])
    positions = unpadded(ops, batch.positions[:, None], [2, 3])
    assert positions[:, 0].tolist() == [0, 1, 0, 1, 2]
