"""Heads too narrow for Metal's fused attention: which are doubled, and that nothing changes."""

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.catalog.cards import Dtype
from embedsvc.inference.ops.base import Attention, columns
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.mlx.narrow_heads import DOUBLED_LENGTH, double, halve, should_double
from tests.support.attention import SPECS, unpadded
from tests.support.tolerance import within


def test_heads_are_doubled_only_where_metal_takes_them_then() -> None:
    assert [size for size in range(1, 300) if should_double(size, 1, 16)] == [32, 36, 40, 48]


def test_short_texts_of_a_batch_are_left_as_they_are() -> None:
    lengths = [n for n in range(16, 256, 16) if should_double(32, 2, n)]
    assert lengths == list(range(DOUBLED_LENGTH, 256, 16))


def test_doubling_adds_zeros_behind_each_head(random: np.random.Generator) -> None:
    x = random.normal(size=(3, 64)).astype(np.float32)
    wide = np.array(double(mx.array(x), 32)).reshape(3, 2, 64)
    assert (wide[..., :32] == x.reshape(3, 2, 32)).all()
    assert (wide[..., 32:] == 0).all()
    assert (np.array(halve(double(mx.array(x), 32), 32)) == x).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("lengths", [[9], [130, 40]], ids=str)
@pytest.mark.parametrize("kind", SPECS)
def test_attention_of_doubled_heads_is_the_same(
    kind: str, dtype: Dtype, lengths: list[int], random: np.random.Generator
) -> None:
    ops, doubling = MlxOps(dtype), MlxOps(dtype)
    doubling.double_heads = True
    kv_heads, rest = SPECS[kind]
    bias = ops.array(random.normal(size=(2, 2 * 144 - 1))) if "bias" in rest else None
    spec = Attention(2, kv_heads, **rest | {"bias": bias})
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    qkv = ops.array(random.normal(size=(batch.ids.size, 64 + 64 * kv_heads)))
    q, k, v = columns(qkv, 64, 32 * kv_heads, 32 * kv_heads)
    one, other = (
        unpadded(each, each.attention(q, k, v, spec, batch.layout), batch)
        for each in (ops, doubling)
    )
    assert np.abs(one - other).max() <= (within(1e-6) if dtype == "float32" else 1e-3)
