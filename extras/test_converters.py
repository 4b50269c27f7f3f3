"""What the converters to MLX write is computed as what it was made from.

Each converter runs here, on every kind of model that it knows, in every precision. The versions of
mlx-embeddings that most conversions on the Hub were made with are among them.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.texts.tokenizer import open_tokenizer
from extras.converters import CONVERTERS, MODES, SOURCES, place, run
from tests.support.backends import BACKENDS
from tests.support.checkpoints import write_json
from tests.support.quantized_cases import wide_case

Floats = NDArray[np.float32]
SAID = ("bits", "group_size", "mode")
TEXTS = wide_case("bert").texts()[1:6:2]
PAIRS = [(name, kind) for name, converter in CONVERTERS.items() for kind in converter.kinds]
CONVERSIONS = [
    (name, kind, suffix) for name, kind in PAIRS for suffix, _ in CONVERTERS[name].options()
]
LEAST = {
    "fp32": 0.999999,
    "fp16": 0.9999,
    "bf16": 0.999,
    "mxfp4": 0.9,
    "mxfp8": 0.99,
    "nvfp4": 0.93,
    "2bit": 0.4,
    "3bit": 0.8,
    "4bit": 0.93,
    "5bit": 0.98,
    "6bit": 0.99,
    "8bit": 0.999,
    "mixed_2_6": 0.4,
    "mixed_3_4": 0.8,
    "mixed_3_6": 0.8,
    "mixed_4_6": 0.93,
}
"""The least cosines with the originals."""


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with all that a converter made; it runs when it is first asked for."""

    @cache
    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        run(name, made, TEXTS)
        return made

    return folder


def opened(folder: Path, kind: str) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder, **SOURCES[kind].card))


def vectors(checkpoint: Checkpoint, backend: str = "numpy") -> Floats:
    return load_encoder(BACKENDS[backend](), checkpoint).encode(TEXTS)


def cosine(x: Floats, y: Floats) -> float:
    return float(np.einsum("nd,nd->n", x, y).min())


@pytest.mark.parametrize(("name", "kind", "suffix"), CONVERSIONS)
def test_vectors_are_those_of_the_weights_and_of_the_package_that_wrote_them(
    name: str, kind: str, suffix: str, converted: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = converted(name)
    checkpoint = opened(place(folder, kind, suffix), kind)
    expected = vectors(expanded(checkpoint, kind, tmp_path))
    for backend in BACKENDS:
        assert np.abs(vectors(checkpoint, backend) - expected).max() <= 1e-5, backend
    original = vectors(open_checkpoint(Card(id="x", path=folder / kind)))
    if suffix == "fp32":
        assert np.abs(expected - original).max() <= 1e-5
    assert cosine(expected, original) >= LEAST[suffix.partition("-")[0]]
    assert np.abs(expected - of_the_package(checkpoint)).max() <= exactness(kind, suffix)


def expanded(checkpoint: Checkpoint, kind: str, tmp_path: Path) -> Checkpoint:
    """The same, with its weights expanded by MLX, as config.json says."""
    folder = place(tmp_path, kind, "fp32")
    shutil.copytree(checkpoint.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    about = config.pop("quantization", {})
    config.pop("quantization_config", None)
    write_json(folder / "config.json", config)
    stored = mx.load(str(folder / "model.safetensors"))
    whole: dict[str, mx.array] = {}
    for name, value in stored.items():
        stem, _, part = name.rpartition(".")
        if part in ("scales", "biases"):
            continue
        if f"{stem}.scales" in stored and part == "weight":
            said = about.get(stem) or {k: v for k, v in about.items() if k in SAID}
            scales, biases = stored[f"{stem}.scales"], stored.get(f"{stem}.biases")
            value = mx.dequantize(value, scales, biases, **said, dtype=mx.float32)
        whole[name] = value.astype(mx.float32)
    mx.save_safetensors(str(folder / "model.safetensors"), whole)
    return opened(folder, kind)


POOLED = {
    "cls": lambda hidden: hidden[0],
    "mean": lambda hidden: hidden.mean(axis=0),
    "last_token": lambda hidden: hidden[-1],
}


def of_the_package(checkpoint: Checkpoint) -> Floats:
    """What the converter's own package makes of the texts."""
    rows: list[Floats] = []
    with np.load(f"{checkpoint.folder}.npz", allow_pickle=False) as outputs:
        for i in range(len(TEXTS)):
            hidden = outputs[f"hidden{i}"]
            if checkpoint.steps:
                rows.append(outputs[f"vector{i}"])
            else:  # those of a ModernBERT are pooled already
                rows.append(hidden if hidden.ndim == 1 else POOLED[checkpoint.pooling[0]](hidden))
    found = np.stack(rows)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def exactness(kind: str, suffix: str) -> float:
    """How close the vectors that the converters' packages compute are to those of the weights."""
    if suffix in ("fp16", "bf16"):
        return 0.01  # they compute in half precision
    if kind == "gemma3_text" and suffix != "fp32":
        return 0.01  # embeddings are multiplied by a whole number if they are quantised
    if kind in ("bert", "xlm-roberta", "gemma3_text-decoder") and suffix in MODES:
        return 0.001  # embeddings come in bfloat16 out of these modes, and are added so
    if kind == "gemma3_text-decoder" or "modernbert" in kind:
        return 1e-4  # a factor is rounded to bfloat16; GELU is approximated
    return 1e-5


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_all_else_is_read_as_from_the_original(
    name: str, kind: str, converted: Callable[[str], Path]
) -> None:
    original = open_checkpoint(Card(id="x", path=converted(name) / kind))
    checkpoint = opened(place(converted(name), kind, "bf16"), kind)
    for field in ("pooling", "normalize", "max_tokens"):
        assert getattr(checkpoint, field) == getattr(original, field), field
    texts = ["hello world", "a", "[CLS] hello"]
    ids = [open_tokenizer(each, 40).encode(texts) for each in (original, checkpoint)]
    assert [one.tolist() for one in ids[0]] == [other.tolist() for other in ids[1]]
