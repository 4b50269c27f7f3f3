"""A weight in blocks gives the same product."""

import numpy as np
import pytest

from embedsvc.checkpoint import Checkpoint
from embedsvc.encoder import load_encoder
from embedsvc.ops.blocks import BLOCK, DEEP, in_blocks, times_blocks
from embedsvc.ops.numpy import NumpyOps

RANDOM = np.random.default_rng(11)


@pytest.mark.parametrize("inputs", [1, 384, DEEP, 768, 1536, 4096])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_a_product_in_blocks_is_the_product(inputs: int, rows: int) -> None:
    x = RANDOM.normal(size=(rows, inputs)).astype(np.float32)
    weight = RANDOM.normal(size=(inputs, 3 * BLOCK)).astype(np.float32)
    blocks = in_blocks(weight)
    assert blocks is not None
    expected = x.astype(np.float64) @ weight
    assert np.abs(times_blocks(x, blocks) - expected).max() <= 1e-6 * inputs**0.5 * 10


@pytest.mark.parametrize("shape", [(384, 100), (DEEP + 1, BLOCK)])
def test_a_weight_that_does_not_divide_stays_whole(shape: tuple[int, int]) -> None:
    assert in_blocks(np.zeros(shape, np.float32)) is None


def test_the_model_gives_the_same_with_blocks_and_without(minilm: Checkpoint) -> None:
    texts = [RANDOM.integers(1000, 30000, n).astype(np.int32) for n in (3, 16, 40, 41)]
    vectors = []
    for pays in (True, False):
        ops = NumpyOps()
        ops._blocks = pays
        encoder = load_encoder(ops, minilm)
        vectors.append(np.concatenate([encoder.encode([text]) for text in texts]))
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6
