"""Windows of long texts on MLX, in bands: what they see, and how little is computed for it."""

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.ops.base import Attention, columns
from embedsvc.inference.ops.mlx import MlxOps, bands
from embedsvc.inference.ops.mlx.bands import band_size
from embedsvc.inference.ops.mlx.layout import grid_shape
from tests.support.attention import unpadded
from tests.support.tolerance import within


def windowed(window: int, *, causal: bool = False, kv_heads: int = 2) -> Attention:
    return Attention(2, kv_heads, scale=0.7, causal=causal, window=window)


@pytest.mark.parametrize("lengths", [[1000, 3, 77], [640]])
@pytest.mark.parametrize(
    "spec",
    [
        windowed(0),
        windowed(7),
        windowed(64),
        windowed(100, causal=True),
        windowed(33, kv_heads=1),
        windowed(200),
    ],
    ids=str,
)
def test_a_window_sees_the_same_in_bands(
    monkeypatch: pytest.MonkeyPatch,
    random: np.random.Generator,
    spec: Attention,
    lengths: list[int],
) -> None:
    ops, width = MlxOps("float32"), 4 * spec.kv_heads
    batch = ops.batch([np.zeros(n, np.int32) for n in lengths])
    qkv = ops.array(random.normal(size=(batch.ids.size, 8 + 2 * width)))
    found = ops.attention(*columns(qkv, 8, width, width), spec, batch.layout)
    assert batch.layout.bands or spec.window == 200
    assert np.isfinite(ops.to_numpy(found)).all(), "padding that is not finite spreads"
    monkeypatch.setattr(bands, "LEAST_BAND", 1 << 20)
    whole = ops.attention(*columns(qkv, 8, width, width), spec, batch.layout)
    assert np.abs(unpadded(ops, found, batch) - unpadded(ops, whole, batch)).max() <= within(1e-6)


def test_tokens_that_are_not_attended_to_are_seen_in_no_band(
    monkeypatch: pytest.MonkeyPatch, random: np.random.Generator
) -> None:
    ops, spec = MlxOps("float32"), windowed(64)
    batch = ops.batch([np.zeros(n, np.int32) for n in (32, 1000)], seen=[7, 990])
    qkv = ops.array(random.normal(size=(batch.ids.size, 24)))
    found = ops.attention(*columns(qkv, 8, 8, 8), spec, batch.layout)
    assert batch.layout.bands
    monkeypatch.setattr(bands, "LEAST_BAND", 1 << 20)
    whole = ops.attention(*columns(qkv, 8, 8, 8), spec, batch.layout)
    assert np.abs(unpadded(ops, found, batch) - unpadded(ops, whole, batch)).max() <= within(1e-6)


def test_bands_are_made_once_for_all_layers_of_a_kind() -> None:
    ops, spec = MlxOps("float32"), windowed(16)
    batch = ops.batch([np.zeros(512, np.int32)])
    q = mx.zeros((512, 8))
    ops.attention(q, q, q, spec, batch.layout)
    (made,) = batch.layout.bands.values()
    ops.attention(q, q, q, spec, batch.layout)
    assert batch.layout.bands[spec] is made


def test_half_precision_survives_bands(random: np.random.Generator) -> None:
    ops = MlxOps("float16")
    batch = ops.batch([np.zeros(n, np.int32) for n in (3, 512)])
    qkv = ops.array(random.normal(size=(1024, 24)))
    context = ops.attention(*columns(qkv, 8, 8, 8), windowed(16), batch.layout)
    assert context.dtype == mx.float16
    assert np.isfinite(ops.to_numpy(context)).all()


@pytest.mark.parametrize("window", [16, 64, 256, 512])
@pytest.mark.parametrize("causal", [True, False])
def test_a_band_divides_its_text_and_sees_no_more_than_half_of_it(
    window: int, causal: bool
) -> None:
    for longest in range(1, 8193, 7):
        _, length = grid_shape(1, longest)
        band = band_size(windowed(window, causal=causal), 1, length)
        if band is not None:
            assert length % band == 0
            assert band + window * (1 if causal else 2) <= length / 2


def test_modernbert_and_gemma_have_bands_from_lengths_on_where_they_pay() -> None:
    def shortest(window: int) -> int:
        lengths = (grid_shape(1, longest)[1] for longest in range(1, 8192))
        return next(n for n in lengths if band_size(windowed(window), 1, n) is not None)

    assert shortest(64) == 384
    assert shortest(256) == 1280


def test_there_are_no_bands_for_a_bias() -> None:
    assert band_size(Attention(1, 1, window=4, bias=mx.zeros((1, 8191))), 1, 4096) is None
    assert band_size(Attention(1, 1), 1, 4096) is None


def test_masks_of_bands_are_bounded() -> None:
    for window in (64, 256):  # ModernBERT's, Gemma's
        assert band_size(windowed(window), 32, 2048) is not None
    assert band_size(windowed(4096), 1, 32768) is None
