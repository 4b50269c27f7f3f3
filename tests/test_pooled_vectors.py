"""What single models do to pooled vectors: pplx-embed rounds them, voyage-4-nano widens them."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.serving.quantize import quantize
from tests.support.checkpoints import write_json
from tests.support.shapes import WIDTH
from tests.support.tiny import CASES
from tests.support.tolerance import within

RECORDED = Path(__file__).parent / "reference" / "architectures"
PPLX, WIDE = CASES["pplx"], 40


def means(name: str) -> NDArray[np.float64]:
    """The mean of the hidden states that transformers gives each text of a case."""
    cuts = np.cumsum([len(text) for text in CASES[name].texts()])[:-1]
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as recorded:
        parts = np.split(recorded["hidden"].astype(np.float64), cuts)
    return np.stack([part.mean(axis=0) for part in parts])


def encode(ops: Ops, folder: Path) -> NDArray[np.float32]:
    encoder = load_encoder(ops, open_checkpoint(Card(id="x", path=folder)))
    return encoder.encode(PPLX.texts())


def test_pplx_embed_gives_the_whole_numbers_that_fit_into_int8(ops: Ops, tmp_path: Path) -> None:
    PPLX.write(tmp_path)
    types = (
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "st_quantize.FlexibleQuantizer",
    )
    paths = ("", "1_Pooling", "")
    listed = [{"path": path, "type": type_} for path, type_ in zip(paths, types, strict=True)]
    write_json(tmp_path / "modules.json", listed)
    vectors = encode(ops, tmp_path)
    exact = 127 * np.tanh(means("pplx"))
    assert (vectors == np.rint(vectors)).all()
    assert np.abs(vectors - exact).max() <= 0.5 + within(1e-3, ops)
    assert np.abs(exact).max() > 1
    assert np.array_equal(quantize(vectors, "int8"), vectors)


def test_a_linear_layer_among_the_weights_of_a_qwen3_widens_its_vectors(
    ops: Ops, tmp_path: Path
) -> None:
    PPLX.write(tmp_path)
    of_voyage = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "auto_map": {"AutoModel": "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"},
        "num_labels": WIDE,
    }
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "config.json", config | of_voyage)
    linear = np.random.default_rng(3).normal(size=(WIDE, WIDTH)).astype(np.float32)
    held = {f"model.{name}": tensor for name, tensor in PPLX.tensors().items()}
    save_file({**held, "linear.weight": linear}, tmp_path / "model.safetensors")
    expected = means("pplx") @ linear.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(encode(ops, tmp_path) - expected).max() <= within(1e-5, ops)


def test_the_text_part_of_a_model_that_takes_images_as_well_is_read_alone(
    ops: Ops, tmp_path: Path
) -> None:
    case = CASES["embedding_gemma2_text"]
    case.write(tmp_path)
    config = {"model_type": "embedding_gemma2", "text_config": case.config, "image_token_id": 5}
    write_json(tmp_path / "config.json", config)
    held = {f"model.language_model.{name}": value for name, value in case.tensors().items()}
    others = {"model.vision_tower.patches.weight": np.ones((2, 2), np.float32)}
    save_file(held | others, tmp_path / "model.safetensors")
    with np.load(RECORDED / "embedding_gemma2_text.npz", allow_pickle=False) as recorded:
        expected = recorded["vectors"]
    assert np.abs(encode(ops, tmp_path) - expected).max() <= within(1e-5, ops)
