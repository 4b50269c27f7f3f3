"""The extra `mlx-embeddings`, for real: an architecture of its, and a tokeniser by transformers.

`make test-extras` installs it in an environment of its own, and runs this.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mlx_embeddings.convert import convert
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.models import ARCHITECTURES
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_bert, write_json, write_tokenizer

VOCABULARY, WIDTH, HEADS, KV_HEADS, SIZE, INNER, LAYERS = 40, 32, 4, 2, 8, 64, 2
CONFIG = {
    "model_type": "llama_bidirec",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": SIZE,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
TEXTS = [
    np.random.default_rng(n).integers(4, VOCABULARY, n).astype(np.int32) for n in (1, 5, 17, 32)
]
REFERENCE = Path(__file__).parent.parent / "tests" / "reference"

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def no_file_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this architecture had none here, so that mlx-embeddings computes it."""
    monkeypatch.delitem(ARCHITECTURES, "llama_bidirec")


def tensors() -> dict[str, NDArray[np.float32]]:
    shapes = {"embed_tokens.weight": (VOCABULARY, WIDTH), "norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {
            f"layers.{i}.self_attn.q_proj.weight": (HEADS * SIZE, WIDTH),
            f"layers.{i}.self_attn.k_proj.weight": (KV_HEADS * SIZE, WIDTH),
            f"layers.{i}.self_attn.v_proj.weight": (KV_HEADS * SIZE, WIDTH),
            f"layers.{i}.self_attn.o_proj.weight": (WIDTH, HEADS * SIZE),
            f"layers.{i}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"layers.{i}.mlp.up_proj.weight": (INNER, WIDTH),
            f"layers.{i}.mlp.down_proj.weight": (WIDTH, INNER),
            f"layers.{i}.input_layernorm.weight": (WIDTH,),
            f"layers.{i}.post_attention_layernorm.weight": (WIDTH,),
        }
    random = np.random.default_rng(3)
    return {name: random.normal(0, 0.4, shape).astype("f") for name, shape in shapes.items()}


def llama_without_causal_mask(ids: NDArray[np.int32]) -> Floats:
    """Hidden states (L, D) of one text in float64, from Llama's paper (arXiv:2302.13971)."""
    take = {name: value.astype(np.float64) for name, value in tensors().items()}
    hidden = take["embed_tokens.weight"][ids]
    for i in range(LAYERS):
        own = {k.removeprefix(f"layers.{i}."): v for k, v in take.items() if f"layers.{i}." in k}
        x = rms_norm(hidden, own["input_layernorm.weight"])
        q, k, v = (x @ own[f"self_attn.{p}_proj.weight"].T for p in "qkv")
        heads: list[Floats] = []
        for head in range(HEADS):
            mine = slice(head * SIZE, (head + 1) * SIZE)
            shared = head // (HEADS // KV_HEADS)
            theirs = slice(shared * SIZE, (shared + 1) * SIZE)
            scores = turned(q[:, mine]) @ turned(k[:, theirs]).T / np.sqrt(SIZE)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, theirs])
        hidden = hidden + np.concatenate(heads, axis=1) @ own["self_attn.o_proj.weight"].T
        x = rms_norm(hidden, own["post_attention_layernorm.weight"])
        gate, up = x @ own["mlp.gate_proj.weight"].T, x @ own["mlp.up_proj.weight"].T
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ own["mlp.down_proj.weight"].T
    return rms_norm(hidden, take["norm.weight"])


def rms_norm(x: Floats, weight: Floats) -> Floats:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + CONFIG["rms_norm_eps"]) * weight


def turned(x: Floats) -> Floats:
    """Rotary positions: the halves of a head are real and imaginary parts."""
    half = SIZE // 2
    angles = np.outer(np.arange(len(x)), CONFIG["rope_theta"] ** (-np.arange(half) / half))
    numbers = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([numbers.real, numbers.imag], axis=1)


def unit(rows: list[Floats]) -> Floats:
    stacked = np.stack(rows)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


def write(folder: Path, **card: object) -> Checkpoint:
    write_json(folder / "config.json", CONFIG)
    write_tokenizer(folder)
    save_file(tensors(), folder / "model.safetensors")
    return open_checkpoint(Card(id="x", path=folder, **card))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token"])
def test_hidden_states_are_its_and_pooling_is_ours(tmp_path: Path, pooling: str) -> None:
    encoder = load_encoder(MlxOps("float32"), write(tmp_path, pooling=pooling))
    hidden = [llama_without_causal_mask(ids) for ids in TEXTS]
    picked = {
        "mean": [rows.mean(axis=0) for rows in hidden],
        "cls": [rows[0] for rows in hidden],
        "last_token": [rows[-1] for rows in hidden],
    }
    expected = unit(picked[pooling])
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([ids]) for ids in TEXTS])
    assert np.abs(alone - expected).max() <= 1e-5
    assert np.abs(together - expected).max() <= 1e-5


def test_half_precision_is_obeyed(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, pooling="mean")
    expected = load_encoder(MlxOps("float32"), checkpoint).encode(TEXTS)
    half = load_encoder(MlxOps("float16"), checkpoint).encode(TEXTS)
    assert 1e-6 < np.abs(half - expected).max() < 0.02


@pytest.mark.parametrize("mode", ["affine", "mxfp8"])
def test_what_its_converter_makes_of_it_is_computed_too(tmp_path: Path, mode: str) -> None:
    original = write(tmp_path / "original", pooling="mean")
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(tmp_path / "original" / "tokenizer_config.json", tokenizer)
    out = tmp_path / "converted"
    options = {"q_mode": mode, "q_bits": 8, "q_group_size": 32, "dtype": "float32"}
    convert(str(tmp_path / "original"), str(out), quantize=True, **options)
    converted = open_checkpoint(Card(id="x", path=out, pooling="mean"))
    assert "quantization" in converted.config
    expected = load_encoder(MlxOps("float32"), original).encode(TEXTS)
    encoder = load_encoder(MlxOps("float32"), converted)
    found = encoder.encode(TEXTS)
    assert np.einsum("nd,nd->n", found, expected).min() >= 0.99
    alone = np.concatenate([encoder.encode([ids]) for ids in TEXTS])
    assert np.abs(found - alone).max() <= 1e-5


def test_without_mlx_the_backend_to_use_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`x`.*`llama_bidirec` needs the backend `mlx`"):
        load_encoder(NumpyOps(), write(tmp_path, pooling="mean"))


def test_a_kind_that_it_lacks_too_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path, model_type="gpt2")
    with pytest.raises(CheckpointError, match="`gpt2` is not supported, nor does mlx-embeddings"):
        load_encoder(MlxOps("float32"), open_checkpoint(Card(id="x", path=tmp_path)))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, pooling="mean")
    some = {name: value for name, value in tensors().items() if "layers.1.mlp" not in name}
    save_file(some, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="mlx-embeddings cannot load model_type"):
        load_encoder(MlxOps("float32"), checkpoint)


def test_a_tokeniser_without_tokenizer_json_is_made_by_transformers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    record = json.loads((REFERENCE / "tokenizers.json").read_text(encoding="utf-8"))
    for _ in range(2):
        tokenizer = read_tokenizer("x", REFERENCE / "tokenizers" / "vocabulary-only")
        found = [tokenizer.encode(text).ids for text in record["texts"]]
        assert found == record["ids"]["vocabulary-only"]
        monkeypatch.setitem(sys.modules, "transformers", None)  # importing it fails
