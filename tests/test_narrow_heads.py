"""Heads too narrow for Metal's fused attention: which are doubled, and that nothing changes."""

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.ops.base import Attention, columns
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.mlx.narrow_heads import DOUBLED_LENGTH, can_double, double, halve
from tests.support.attention import SPECS, unpadded


def test_heads_are_doubled_only_where_metal_takes_them_then() -> None:
    assert [size for size in range(1, 300) if can_double(size)] == [32, 36, 40, 48]


def test_doubling_adds_zeros_behind_each_head(random: np.random.Generator) -> None:
    x = random.normal(size=(3, 64)).astype(np.float32)
    wide = np.array(double(mx.array(x), 32)).reshape(3, 2, 64)
    assert (wide[..., :32] == x.reshape(3, 2, 32)).all()
    assert (wide[..., 32:] == 0).all()
    assert (np.array(halve(double(mx.array(x), 32), 32)) == x).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", SPECS)
def test_attention_of_doubled_heads_is_the_same(
    kind: str, dtype: str, random: np.random.Generator
) -> None:
    ops, doubling = MlxOps(dtype), MlxOps(dtype)
    doubling.doubled_length = 16
    kv_heads, rest = SPECS[kind]
    bias = ops.array(random.normal(size=(2, 2 * 16 - 1))) if "bias" in rest else None
    spec = Attention(2, kv_heads, **rest | {"bias": bias})
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in (3, 9)])
    qkv = ops.array(random.normal(size=(32, 64 + 64 * kv_heads)))
    q, k, v = columns(qkv, 64, 32 * kv_heads, 32 * kv_heads)
    one, other = (
        unpadded(each, each.attention(q, k, v, spec, batch.layout), batch)
        for each in (ops, doubling)
    )
    assert np.abs(one - other).max() <= (1e-6 if dtype == "float32" else 1e-3)


def test_short_texts_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ops, q = MlxOps("float32"), mx.zeros((DOUBLED_LENGTH, 32))
    ops.doubled_length = DOUBLED_LENGTH
    widths: list[int] = []

    def noted(q: mx.array, k: mx.array, v: mx.array, **options: object) -> mx.array:
        widths.append(q.shape[-1])
        return q

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", noted)
    for longest in (16, DOUBLED_LENGTH - 16, DOUBLED_LENGTH):
        batch = ops.batch([np.zeros(longest, np.int32)])
        ops.attention(q[:longest], q[:longest], q[:longest], Attention(1, 1), batch.layout)
    assert widths == [32, 32, 64]
