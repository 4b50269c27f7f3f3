"""Checkpoints as the converters to MLX write them, against vectors recorded from the reference."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.families import FROM_MODULES
from embedsvc.checkpoints.quantized import quantize
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_json
from tests.support.conversions import cached, opened
from tests.support.shapes import WIDTH
from tests.support.tiny import CASES
from tests.support.tolerance import within

RECORDED = Path(__file__).parent / "reference" / "architectures"


def without_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")


def without_pooling_folder(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")


def prefixed(folder: Path) -> None:
    without_modules(folder)
    weights = folder / "model.safetensors"
    tensors = {f"model.{name}": value for name, value in load_file(weights).items()}
    save_file(tensors, weights, {"format": "mlx"})


LAYOUTS = {
    "mlx-lm": without_modules,
    "mlx-embeddings": without_pooling_folder,
    "model.": prefixed,
}
MODELS = {
    "bert": "mlx-community/bge-small-en-v1.5-bf16",
    "xlm-roberta": "mlx-community/multilingual-e5-base-mlx",
    "modernbert-transformers": "Alibaba-NLP/gte-modernbert-base",
    "qwen3": "mlx-community/Qwen3-Embedding-0.6B-bf16",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_vectors_of_each_layout_equal_the_reference(
    ops: Ops, tmp_path: Path, name: str, layout: str
) -> None:
    case = CASES[name]
    folder = case.write(cached(tmp_path, MODELS[name]))
    LAYOUTS[layout](folder)
    vectors = load_encoder(ops, opened(folder)).encode(case.texts())
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as recorded:
        assert np.abs(vectors - recorded["vectors"]).max() <= within(1e-5, ops)


GEMMA = "mlx-community/embeddinggemma-300m-bf16"


def write_gemma(folder: Path, *, quantized: bool = False) -> NDArray[np.float32]:
    """A Gemma 3 with its Dense layers among its weights; the vectors of the case's texts."""
    case = CASES["gemma3_text"]
    case.write(folder)
    random = np.random.default_rng(3)
    shapes = [(4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
    layers = [random.normal(0, 0.2, shape).astype(np.float32) for shape in shapes]
    tensors: dict[str, NDArray[Any]] = {
        f"model.{name}": value for name, value in load_file(folder / "model.safetensors").items()
    }
    for i, layer in enumerate(layers):
        tensors[f"dense.{i}.weight"] = layer
        if quantized and layer.shape[1] % 32 == 0:
            packed = quantize(layer, 32, 8)
            tensors[f"dense.{i}.weight"] = packed.packed
            tensors |= {f"dense.{i}.scales": packed.scales, f"dense.{i}.biases": packed.biases}
            layers[i] = packed.expanded()
    save_file(tensors, folder / "model.safetensors", {"format": "mlx"})
    with np.load(RECORDED / "gemma3_text.npz", allow_pickle=False) as recorded:
        ends = np.cumsum([len(text) for text in case.texts()])[:-1]
        means = [rows.mean(axis=0) for rows in np.split(recorded["hidden"], ends)]
    vectors = np.stack(means) @ layers[0].T @ layers[1].T
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("listed", [True, False])
def test_dense_layers_among_the_weights_follow_the_pooling(
    ops: Ops, tmp_path: Path, quantized: bool, listed: bool
) -> None:
    folder = cached(tmp_path, GEMMA)
    expected = write_gemma(folder, quantized=quantized)
    without_pooling_folder(folder)
    if listed:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Dense": "Dense"}
        package = "sentence_transformers.models"
        modules = [{"path": p, "type": f"{package}.{kind}"} for p, kind in kinds.items()]
        modules.append({"path": "4_Normalize", "type": f"{package}.Normalize"})
        write_json(folder / "modules.json", modules)
    vectors = load_encoder(ops, opened(folder)).encode(CASES["gemma3_text"].texts())
    assert np.abs(vectors - expected).max() <= within(1e-5, ops)


def test_a_family_with_dense_layers_is_refused_without_them(tmp_path: Path) -> None:
    folder = CASES["gemma3_text"].write(cached(tmp_path, GEMMA))
    without_pooling_folder(folder)
    with pytest.raises(CheckpointError, match="the 2 Dense layers are missing"):
        opened(folder)


def test_a_dense_layer_that_is_no_matrix_is_refused(tmp_path: Path) -> None:
    write_gemma(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights) | {"dense.1.weight": np.zeros(3, "f")}, weights)
    with pytest.raises(CheckpointError, match=r"dense\.1\.weight` has shape \(3,\)"):
        opened(tmp_path)


def test_what_is_converted_says_itself_how_it_pools(tmp_path: Path) -> None:
    folder = cached(tmp_path, GEMMA)
    expected = write_gemma(folder)
    without_pooling_folder(folder)
    convert(opened(folder), tmp_path / "out", Precision("float32"))
    converted = opened(tmp_path / "out")
    assert (converted.pooling, converted.pooling_source) == (("mean",), FROM_MODULES)
    vectors = load_encoder(NumpyOps(), converted).encode(CASES["gemma3_text"].texts())
    assert np.abs(vectors - expected).max() <= 1e-5
