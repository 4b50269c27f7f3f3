"""What MLX alone has: shapes that are padded to, switches that are measured, half precision."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Attention, columns
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.plan import make_plan
from embedsvc.system import machine
from embedsvc.texts.item import Item
from tests.support.attention import SPECS, unpadded
from tests.support.tolerance import within


@pytest.mark.parametrize("kind", SPECS)
def test_attention_is_the_same_whichever_way_is_faster(
    kind: str, random: np.random.Generator
) -> None:
    ops, other = MlxOps("float32"), MlxOps("float32")
    other.plain = True
    kv_heads, rest = SPECS[kind]
    bias = ops.array(random.normal(size=(2, 2 * 16 - 1))) if "bias" in rest else None
    spec = Attention(2, kv_heads, **rest | {"bias": bias})
    lengths = [3, 9]
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    qkv = ops.array(random.normal(size=(32, 16 + 16 * kv_heads)))
    q, k, v = columns(qkv, 16, 8 * kv_heads, 8 * kv_heads)
    expected, found = (o.attention(q, k, v, spec, batch.layout) for o in (ops, other))
    one, two = (unpadded(ops, each, batch) for each in (found, expected))
    assert np.abs(one - two).max() <= within(1e-6)


@pytest.mark.parametrize("lengths", [[16, 16], [3, 9], [1], [2, 2, 2]])
def test_a_compiled_pass_gives_the_same(
    tiny: Checkpoint, lengths: list[int], random: np.random.Generator
) -> None:
    ops = MlxOps("float32")
    encoder = load_encoder(ops, tiny)
    texts = [random.integers(0, 30, n).astype(np.int32) for n in lengths]
    expected = encoder.encode(texts)
    ops.compile, ops.often = True, 1
    assert np.abs(encoder.encode(texts) - expected).max() <= within(1e-6)


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


@pytest.mark.parametrize(
    ("info", "memory"),
    [
        ({"memory_size": 8 << 30, "max_recommended_working_set_size": 5726623061}, 5726623061),
        ({"memory_size": 16 << 30, "max_recommended_working_set_size": 11453246122}, 11453246122),
        ({"memory_size": 32 << 30, "max_recommended_working_set_size": 22906492245}, 22906492245),
        ({"memory_size": 6 << 30}, 4 << 30),  # as on a virtual machine that does not tell
        ({"memory_size": 6 << 30, "max_recommended_working_set_size": 0}, 4 << 30),
        ({"total_memory": 24 << 30}, 24 << 30),  # CUDA
    ],
)
def test_what_metal_recommends_is_the_memory_that_there_is_and_is_kept_resident(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], memory: int
) -> None:
    metal = "memory_size" in info
    limits: dict[str, list[int]] = {"cache": [], "memory": [], "wired": []}
    monkeypatch.setattr(mx, "set_default_device", lambda _: None)
    monkeypatch.setattr(mx, "is_available", lambda _: True)
    monkeypatch.setattr(mx, "device_info", lambda _: info | {"device_name": "G"})
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    for name, given in limits.items():
        monkeypatch.setattr(mx, f"set_{name}_limit", given.append)
    ops = MlxOps()
    assert (ops.dtype, ops.memory, ops.pass_memory) == ("float16", memory, memory // 4)
    assert ops.device == f"G ({'Metal' if metal else 'CUDA'})"
    within = [memory] if metal else []
    # MLX's `set_wired_limit` raises ValueError above what Metal recommends.
    resident = [info.get("max_recommended_working_set_size", 0)] if metal else []
    assert limits == {"cache": [memory // 8], "memory": within, "wired": resident}


def test_without_a_gpu_memory_is_the_machine_s_and_nothing_is_wired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mx, "is_available", lambda _: False)
    monkeypatch.setattr(mx, "set_default_device", lambda _: None)
    monkeypatch.setattr(mx, "set_wired_limit", None)
    ops = MlxOps()
    assert (ops.dtype, ops.memory) == ("float32", machine.memory().usable)


@pytest.mark.skipif(
    mx.is_available(mx.gpu), reason="a GPU frees small arrays only some commands later"
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_pass_takes_no_more_memory_than_is_reckoned_for_its_tokens(
    tiny: Checkpoint, compiled: bool
) -> None:
    ops = MlxOps("float32")
    encoder = load_encoder(ops, tiny)
    ops.compile, ops.often = compiled, 1
    items = [Item(np.zeros(32, np.int32))] * 64
    encoder.run(items, "vector")
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    encoder.run(items, "vector")
    reckoned = make_plan(tiny, "float32", backend="mlx").token_size * 64 * 32
    assert reckoned / 8 < mx.get_peak_memory() - before < reckoned


def test_half_precision_survives_padding_and_windows(random: np.random.Generator) -> None:
    ops = MlxOps("float16")
    batch = ops.batch([np.zeros(n, np.int32) for n in (3, 40)])
    qkv = ops.array(random.normal(size=(96, 24)))
    for spec in (Attention(2, 2, window=2), Attention(2, 2, bias=ops.array(np.ones((2, 95))))):
        context = ops.attention(*columns(qkv, 8, 8, 8), spec, batch.layout)
        assert str(context.dtype) == "mlx.core.float16"
        assert np.isfinite(ops.to_numpy(context)).all()


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
        assert np.abs(floats[0] - floats[1]).max() <= within(1e-6)
