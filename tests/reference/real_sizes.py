"""Models as large as they really are, with random weights, against their reference.

    python -m tests.reference.real_sizes [--backend native|numpy] [CARD ...]

For each card in real_sizes.json, with its true config.json: a checkpoint with random weights is
written to a temporary folder, and read by transformers (by `float64.py` beside this where
transformers lacks the model) and by embedsvc, both in float32. Prints a table: card, parameters,
the lowest cosine between the two vectors of a text, and the greatest difference of any component.
Needs torch, some 8 GB of memory and 3 GB of disk; it is not part of `make test`.
"""

import argparse
import gc
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModel

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.reference.float64 import jina_bert, nomic_bert_moe
from tests.support.shapes import jina_shapes, nomic_moe_shapes

LENGTHS = (3, 40, 130, 700)
"""Of the texts, in tokens; the last is cut to what the model takes."""
Forward = Callable[[NDArray[np.int32]], NDArray[Any]]


class Model(NamedTuple):
    """A card's pooling and config.json, and what that is where transformers reads it."""

    pooling: str
    config: dict[str, Any]
    reference: dict[str, Any] | None = None


class Own(NamedTuple):
    """A forward pass of `float64.py`, and the shapes of the tensors it takes."""

    forward: Callable[..., NDArray[Any]]
    shapes: Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]


MODELS = {
    name: Model(**model)
    for name, model in json.loads(
        Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    ).items()
}
OWN = {
    "nomic-embed-text-v2-moe": Own(nomic_bert_moe, nomic_moe_shapes),
    "jina-embeddings-v2-small-en": Own(jina_bert, jina_shapes),
    "jina-embeddings-v2-base-en": Own(jina_bert, jina_shapes),
}


def compare(name: str, ops: NumpyOps) -> str:
    """A row of the table."""
    model = MODELS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        random = np.random.default_rng(0)
        if name in OWN:
            count, forward = write_own(OWN[name], model.config, folder, random)
        else:
            count, forward = write(model, folder, random)
        (folder / "config.json").write_text(json.dumps(model.config), encoding="utf-8")
        positions = model.config.get("max_position_embeddings", math.inf)
        limit = int(min(LENGTHS[-1], positions - 2))
        lengths = [min(length, limit) for length in LENGTHS]
        vocabulary = model.config["vocab_size"]
        texts = [random.integers(5, vocabulary, n).astype(np.int32) for n in lengths]
        with torch.no_grad():
            expected = np.stack([pool(forward(ids), model.pooling) for ids in texts])
        del forward
        gc.collect()
        card = Card(id=name, path=folder, pooling=model.pooling, max_tokens=limit)
        found = load_encoder(ops, open_checkpoint(card)).encode(texts)
    cosine = np.einsum("bd,bd->b", found.astype(np.float64), expected)
    cosine /= np.linalg.norm(found.astype(np.float64), axis=1)
    difference = np.abs(found - expected).max()
    return f"| {name} | {count / 1e6:.1f} M | {cosine.min():.9f} | {difference:.1e} |"


def write(model: Model, folder: Path, random: np.random.Generator) -> tuple[int, Forward]:
    """Writes the weights; returns their number, and transformers' forward pass."""
    config = dict(model.reference or model.config)
    kind = config.pop("model_type")
    built = AutoModel.from_config(AutoConfig.for_model(kind, **config), dtype=torch.float32)
    built.eval().requires_grad_(False)
    for name, tensor in built.named_parameters():
        tensor.copy_(torch.from_numpy(random_like(name, tuple(tensor.shape), kind, random)))
    built.save_pretrained(folder)

    def forward(ids: NDArray[np.int32]) -> NDArray[Any]:
        return built(torch.from_numpy(ids[None].astype(np.int64))).last_hidden_state[0].numpy()

    return sum(tensor.numel() for tensor in built.parameters()), forward


def write_own(
    own: Own, config: dict[str, Any], folder: Path, random: np.random.Generator
) -> tuple[int, Forward]:
    """The same, of what transformers lacks."""
    tensors = {
        name: random_like(name, shape, config["model_type"], random)
        for name, shape in own.shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors")
    count = sum(tensor.size for tensor in tensors.values())
    return count, lambda ids: own.forward(tensors, config, ids)


def random_like(
    name: str, shape: tuple[int, ...], kind: str, random: np.random.Generator
) -> NDArray[np.float32]:
    """A tensor that keeps the size of what it multiplies; scales of norms are about 1."""
    value = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 2:
        return value * np.float32(1.0 if "embed" in name else shape[1] ** -0.5)
    about = 1 if name.endswith("weight") and kind != "gemma3_text" else 0
    return about + value * np.float32(0.1)


def pool(hidden: NDArray[Any], pooling: str) -> NDArray[Any]:
    """One unit vector (D,) from hidden states (L, D)."""
    hidden = hidden.astype(np.float64)
    rows = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last_token": hidden[-1]}
    return rows[pooling] / np.linalg.norm(rows[pooling])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Real sizes, random weights, two programs.")
    parser.add_argument("cards", nargs="*", metavar="CARD", help="default: all")
    parser.add_argument("--backend", choices=("native", "numpy"), default="native")
    arguments = parser.parse_args()
    ops = NativeOps() if arguments.backend == "native" else NumpyOps()
    torch.set_num_threads(2)
    print(f"embedsvc on {ops.device}, torch {torch.__version__}\n")
    print("| card | parameters | cosine | max difference |\n|---|---|---|---|")
    for name in arguments.cards or MODELS:
        print(compare(name, ops), flush=True)


if __name__ == "__main__":
    main()
