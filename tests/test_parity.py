"""The real all-MiniLM-L6-v2 against vectors recorded from sentence-transformers.

`tests/reference/record.py` made the recording; versions are in the JSON file beside it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.backends import BACKENDS
from tests.support.tolerance import within

REFERENCE = Path(__file__).parent / "reference"
TEXTS: list[str] = json.loads((REFERENCE / "texts.json").read_text(encoding="utf-8"))
RECORDED: NDArray[np.float32] = np.load(REFERENCE / "all-MiniLM-L6-v2.npy", allow_pickle=False)
ABOUT = json.loads((REFERENCE / "all-MiniLM-L6-v2.json").read_text(encoding="utf-8"))


MLX_CPU = [*range(0, 94, 3), *range(94, 105), 110]
"""Texts tried on MLX, whose CPU takes a second for a hundred tokens: some of each kind, and the
longest."""


@pytest.fixture(scope="module", params=BACKENDS)
def encoder(request: pytest.FixtureRequest, minilm: Checkpoint) -> Encoder:
    return load_encoder(BACKENDS[request.param](), minilm)


@pytest.fixture(scope="module")
def token_ids(minilm: Checkpoint) -> list[NDArray[np.int32]]:
    return Tokenizer("minilm", minilm.folder, minilm.max_tokens).encode(TEXTS)


def test_the_recording_covers_what_it_should() -> None:
    assert len(TEXTS) == len(RECORDED) >= 40
    assert {3, 16, 17, 256} <= set(ABOUT["tokens"])


def test_tokens_are_counted_as_sentence_transformers_counts_them(
    token_ids: list[NDArray[np.int32]],
) -> None:
    assert [len(ids) for ids in token_ids] == ABOUT["tokens"]


def test_vectors_equal_sentence_transformers(
    encoder: Encoder, token_ids: list[NDArray[np.int32]]
) -> None:
    chosen = MLX_CPU if encoder.backend == "mlx" else range(len(TEXTS))
    vectors = np.concatenate([encoder.encode([token_ids[i]]) for i in chosen])
    recorded = RECORDED[list(chosen)]
    assert np.abs(vectors - recorded).max() <= within(2e-5, encoder._ops)
    cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), recorded)
    assert cosines.min() >= 0.999999


def test_a_vector_is_the_same_alone_and_in_any_batch_in_any_order(
    encoder: Encoder, token_ids: list[NDArray[np.int32]]
) -> None:
    random = np.random.default_rng(5)
    for size in (2, 5, 8):
        # One in the dark of much padding, the rest short: MLX's CPU takes seconds for more.
        order = random.permutation([i for i, ids in enumerate(token_ids) if len(ids) <= 40])[:size]
        order[0] = next(i for i, ids in enumerate(token_ids) if len(ids) == 65)
        random.shuffle(order)
        together = encoder.encode([token_ids[i] for i in order])
        alone = np.concatenate([encoder.encode([token_ids[i]]) for i in order])
        assert np.abs(together - alone).max() <= within(1e-5, encoder._ops)
        assert np.abs(together - RECORDED[order]).max() <= within(2e-5, encoder._ops)


def test_float16_stays_close(minilm: Checkpoint, token_ids: list[NDArray[np.int32]]) -> None:
    vectors = load_encoder(MlxOps("float16"), minilm).encode(token_ids[:8])
    assert np.einsum("nd,nd->n", vectors, RECORDED[:8]).min() >= 0.998
