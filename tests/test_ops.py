"""Each operation on each backend against plain float64 NumPy."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Attention, Batch, Norm, Ops, columns, rope_table
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import ROWS
from embedsvc.texts.item import Item


def unpadded(ops: Ops, value: object, batch: Batch) -> NDArray[np.float32]:
    """The rows of tokens, whatever the backend's layout."""
    return np.concatenate(ops.split(ops.to_numpy(value), batch.layout))


def close(ops: Ops, value: object, expected: np.ndarray, bound: float = 2e-6) -> None:
    found = ops.to_numpy(value)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound


def test_gelu_is_the_exact_one(ops: Ops) -> None:
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)
    expected = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    close(ops, ops.gelu(ops.array(x.copy())), expected, bound=1e-6)


def test_gelu_of_huge_values_is_finite(ops: Ops) -> None:
    x = np.array([-1e30, -1e4, 0.0, 1e4, 1e30], dtype=np.float32)
    assert ops.to_numpy(ops.gelu(ops.array(x.copy()))).tolist() == [0, 0, 0, *x[3:].tolist()]


def test_gelu_tanh_is_the_formula(ops: Ops) -> None:
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)
    cubed = x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * cubed))
    close(ops, ops.gelu_tanh(ops.array(x.copy())), expected, bound=2e-6)


def test_silu(ops: Ops) -> None:
    x = np.array([-1e30, *np.linspace(-120, 120, 6001), 1e30], dtype=np.float32)[:, None]
    expected = x / (1 + np.exp(-np.maximum(x.astype(np.float64), -700)))
    found = ops.to_numpy(ops.silu(ops.array(x.copy())))
    assert np.abs(found - expected)[1:-1].max() <= 1e-5
    assert found[[0, -1], 0].tolist() == [0, x[-1, 0]]


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_columns_of_a_product_can_be_worked_on_alone(
    ops: Ops, activation: str, random: np.random.Generator
) -> None:
    x = random.normal(size=(40, 6)).astype(np.float32)
    gate, up = columns(ops.array(x.copy()), 3, 3)
    expected = ops.to_numpy(getattr(ops, activation)(ops.array(x[:, :3].copy()))) * x[:, 3:]
    close(ops, ops.multiply(getattr(ops, activation)(gate), up), expected)


@pytest.mark.parametrize("shifted", [True, False])
def test_layer_norm(ops: Ops, shifted: bool, random: np.random.Generator) -> None:
    x = random.normal(3, 2, (5, 16))
    weight, bias = random.normal(size=(2, 16))
    norm = Norm(ops.array(weight), ops.array(bias) if shifted else None)
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    expected = (x - x.mean(axis=1, keepdims=True)) / deviation * weight + bias * shifted
    close(ops, ops.layer_norm(ops.array(x), norm, 1e-5), expected)


@pytest.mark.parametrize("size", [16, 4])
def test_rms_norm_of_rows_or_of_heads(ops: Ops, size: int, random: np.random.Generator) -> None:
    x = random.normal(1, 2, (5, 32))
    weight = random.normal(size=size)
    slices = x[:, :16].reshape(5, -1, size)
    expected = slices / np.sqrt((slices**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    found = ops.rms_norm(ops.array(x)[:, :16], ops.array(weight), 1e-5)
    close(ops, found, expected.reshape(5, 16))


def test_rope_turns_the_two_halves_of_a_head_by_its_position(
    ops: Ops, random: np.random.Generator
) -> None:
    size, heads = 8, 3
    x = random.normal(size=(6, size * heads))
    positions = np.array([0, 1, 2, 0, 5, 499], dtype=np.int32)
    turns = positions[:, None] * 10000.0 ** (-np.arange(4) / 4)
    pairs = x.reshape(6, heads, 2, 4)
    turned = (pairs[:, :, 0] + 1j * pairs[:, :, 1]) * np.exp(1j * turns)[:, None]
    expected = np.stack([turned.real, turned.imag], axis=2).reshape(6, -1)
    table = ops.float32(rope_table(size, 10000.0, 500))
    wide = ops.array(np.concatenate([x, x], axis=1))
    indices = ops.batch([positions]).ids[:6]
    close(ops, ops.rope(columns(wide, 24, 24)[0], table, indices), expected, bound=3e-5)


@pytest.mark.parametrize("chosen", [1, 2])
def test_experts_are_weighted_by_the_router(
    ops: Ops, chosen: int, random: np.random.Generator
) -> None:
    x, scores = random.normal(size=(9, 4)), random.normal(size=(9, 3))
    up, down = random.normal(size=(3, 5, 4)), random.normal(size=(3, 4, 5))
    expected = np.zeros((9, 4))
    for row in range(9):
        weights = np.exp(scores[row]) / np.exp(scores[row]).sum()
        for expert in np.argsort(-scores[row])[:chosen]:
            inner = up[expert] @ x[row]
            inner *= [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in inner]
            expected[row] += weights[expert] * (down[expert] @ inner)
    layer = ops.experts_layer(up, down)
    close(ops, ops.experts(ops.array(x), ops.array(scores), chosen, layer), expected, bound=1e-5)


@pytest.mark.parametrize("biased", [True, False])
def test_linear(ops: Ops, biased: bool, random: np.random.Generator) -> None:
    x, weight, bias = random.normal(size=(7, 16)), random.normal(size=(5, 16)), np.arange(5.0)
    layer = ops.linear_layer(weight, bias if biased else None)
    expected = x @ weight.T + (bias if biased else 0)
    close(ops, ops.linear(ops.array(x), layer), expected, bound=1e-5)


def test_rows_gives_every_row_to_the_function_once(ops: Ops) -> None:
    count = 3 * ROWS + 1
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    found = ops.rows(ops.add, ops.array(x.copy()), ops.array(x))
    close(ops, found, 2.0 * x, bound=0)


def test_rows_gives_back_as_many_arrays_as_the_function(ops: Ops) -> None:
    x = np.arange(4.0 * (2 * ROWS + 3), dtype=np.float32).reshape(-1, 4)
    first, second = ops.rows(lambda x: columns(x, 3, 1), ops.array(x))
    close(ops, first, x[:, :3], bound=0)
    close(ops, second, x[:, 3:], bound=0)


def test_a_copy_is_safe_from_being_overwritten(ops: Ops) -> None:
    x = ops.array(np.ones((3, 4)))
    ops.silu(ops.copy(x))
    close(ops, x, np.ones((3, 4)), bound=0)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, spec: Attention) -> np.ndarray:
    """Attention of one text in float64, a score at a time."""
    length, size = len(q), q.shape[1] // spec.heads
    out = np.zeros((length, spec.heads, size))
    q, k, v = (x.astype(np.float64).reshape(length, -1, size) for x in (q, k, v))
    for head in range(spec.heads):
        of = head * spec.kv_heads // spec.heads
        for i in range(length):
            seen = [
                j
                for j in range(length)
                if (not spec.causal or j <= i)
                and (spec.window is None or abs(i - j) <= spec.window)
            ]
            scores = k[seen, of] @ q[i, head] * spec.scale
            if spec.bias is not None:
                bias = np.array(spec.bias)[head]
                scores += bias[np.array(seen) - i + len(bias) // 2]
            weights = np.exp(scores - scores.max())
            out[i, head] = weights / weights.sum() @ v[seen, of]
    return out.reshape(length, -1)


SPECS: dict[str, tuple[int, dict[str, Any]]] = {  # heads of keys, and what the rest is
    "plain": (2, {}),
    "scaled": (2, {"scale": 0.3}),
    "causal": (2, {"causal": True}),
    "window": (2, {"window": 3}),
    "window of one": (2, {"window": 0}),
    "causal window": (2, {"window": 5, "causal": True}),
    "shared keys": (1, {"scale": 0.5}),
    "shared keys, window": (1, {"window": 4}),
    "biased": (2, {"bias": True}),
    "biased, shared keys, window": (1, {"bias": True, "window": 6}),
}


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
    assert np.abs(unpadded(ops, found, batch) - np.concatenate(expected)).max() <= 2e-6
    assert np.isfinite(ops.to_numpy(found)).all(), "padding that is not finite spreads"


def test_long_texts_see_what_they_should(
    monkeypatch: pytest.MonkeyPatch, ops: Ops, random: np.random.Generator
) -> None:
    monkeypatch.setattr("embedsvc.inference.ops.mlx.layout.BIASED_SCORES", 1 << 10)
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
        assert np.abs(unpadded(ops, found, batch) - expected).max() <= 2e-6


@pytest.mark.parametrize("lengths", [[1], [5], [3, 3, 3], [2, 5, 5, 17], [16, 16], [1, 40]])
def test_pooling_stays_within_a_text(
    ops: Ops, lengths: list[int], random: np.random.Generator
) -> None:
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    hidden = random.normal(size=(ops.to_numpy(batch.ids).shape[0], 6)).astype(np.float32)
    texts = np.split(unpadded(ops, ops.array(hidden), batch), np.cumsum(lengths)[:-1])
    weights = [np.arange(1, n + 1)[:, None] for n in lengths]
    expected: dict[Pooling, list[Any]] = {
        "mean": [text.mean(axis=0) for text in texts],
        "max": [text.max(axis=0) for text in texts],
        "cls": [text[0] for text in texts],
        "last_token": [text[-1] for text in texts],
        "mean_sqrt_len": [text.sum(axis=0) / len(text) ** 0.5 for text in texts],
        "weighted_mean": [
            (text * w).sum(axis=0) / w.sum() for text, w in zip(texts, weights, strict=True)
        ],
    }
    assert set(expected) == set(get_args(Pooling))
    for pooling, rows in expected.items():
        found = ops.pool(ops.array(hidden), batch.layout, [pooling])
        close(ops, found[: len(lengths)], np.stack(rows))
    both = ops.pool(ops.array(hidden), batch.layout, ["last_token", "max"])
    side_by_side = np.hstack([expected["last_token"], expected["max"]])
    close(ops, both[: len(lengths)], side_by_side)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("switch", ["pad_heads", "plain"])
def test_attention_is_the_same_whichever_way_is_faster(
    switch: str, kind: str, random: np.random.Generator
) -> None:
    ops, other = MlxOps("float32"), MlxOps("float32")
    setattr(other, switch, True)
    kv_heads, rest = SPECS[kind]
    bias = ops.array(random.normal(size=(2, 2 * 16 - 1))) if "bias" in rest else None
    spec = Attention(2, kv_heads, **rest | {"bias": bias})
    lengths = [3, 9]
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    qkv = ops.array(random.normal(size=(32, 16 + 16 * kv_heads)))
    q, k, v = columns(qkv, 16, 8 * kv_heads, 8 * kv_heads)
    expected, found = (o.attention(q, k, v, spec, batch.layout) for o in (ops, other))
    assert np.abs(unpadded(ops, found, batch) - unpadded(ops, expected, batch)).max() <= 1e-6


@pytest.mark.parametrize("lengths", [[16, 16], [3, 9], [1], [2, 2, 2]])
def test_a_compiled_pass_gives_the_same(
    tiny: Checkpoint, lengths: list[int], random: np.random.Generator
) -> None:
    ops = MlxOps("float32")
    encoder = load_encoder(ops, tiny)
    texts = [random.integers(0, 30, n).astype(np.int32) for n in lengths]
    expected = encoder.encode(texts)
    ops.compile = True
    assert np.abs(encoder.encode(texts) - expected).max() <= 1e-6


@pytest.mark.parametrize(("metal", "tried"), [(True, "pad_heads"), (False, "plain")])
def test_a_switch_is_kept_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, metal: bool, tried: str
) -> None:
    ops = MlxOps("float32")

    def seconds() -> float:
        return 2.0 - 0.5 * ops.pad_heads - 0.5 * ops.plain + 0.5 * ops.compile

    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    ops.gpu = True
    ops.tune(seconds)
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


@pytest.mark.parametrize("size", [30.0, 1000.0, -1000.0])
def test_attention_holds_where_scores_are_huge(ops: Ops, size: float) -> None:
    batch = ops.batch([np.zeros(3, np.int32)])
    rows = ops.to_numpy(batch.ids).shape[0]
    qkv = np.ones((rows, 3), dtype=np.float32)
    qkv[:, 1] = size * np.arange(rows)  # keys: the last (or, negated, the first) takes it all
    qkv[:, 2] = np.arange(rows)
    context = ops.attention(*columns(ops.array(qkv), 1, 1, 1), Attention(1, 1), batch.layout)
    found = unpadded(ops, context, batch)
    assert np.abs(found - (2 if size > 0 else 0)).max() <= 1e-6


def test_half_precision_survives_padding_and_windows(random: np.random.Generator) -> None:
    ops = MlxOps("float16")
    batch = ops.batch([np.zeros(n, np.int32) for n in (3, 40)])
    qkv = ops.array(random.normal(size=(96, 24)))
    for spec in (Attention(2, 2, window=2), Attention(2, 2, bias=ops.array(np.ones((2, 95))))):
        context = ops.attention(*columns(qkv, 8, 8, 8), spec, batch.layout)
        assert str(context.dtype) == "mlx.core.float16"
        assert np.isfinite(ops.to_numpy(context)).all()


def test_positions_begin_anew_with_every_text(ops: Ops) -> None:
    batch = ops.batch([np.array([7, 8], np.int32), np.array([9, 9, 9], np.int32)])
    positions = unpadded(ops, batch.positions[:, None], batch)
    assert positions[:, 0].tolist() == [0, 1, 0, 1, 2]


def test_passes_begun_on_one_thread_and_finished_on_others_are_right(tiny: Checkpoint) -> None:
    encoder = load_encoder(MlxOps("float32"), tiny)
    random = np.random.default_rng(4)
    batches = [
        [Item(random.integers(0, 30, n).astype(np.int32)) for n in random.integers(1, 32, count)]
        for count in random.integers(1, 20, 40)
    ]
    expected = [encoder.run(batch, "vector") for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        begun = [encoder.begin(batch, "vector") for batch in batches]
        found = list(threads.map(encoder.collect, begun))
    for one, other in zip(found, expected, strict=True):
        floats = [np.frombuffer(b"".join(results), "<f4") for results in (one, other)]
        assert np.abs(floats[0] - floats[1]).max() <= 1e-6
