"""BERT checkpoints of real sizes with random weights, to measure what size costs."""

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

SIZES = {"tiny": (2, 64, 4), "bge-base": (12, 768, 12), "bge-large": (24, 1024, 16)}
"""Layers, width, heads."""


def write_random(folder: Path, like: Path, layers: int, width: int, heads: int) -> Path:
    """Write a BERT in float16, with the tokeniser and the pooling of another checkpoint."""
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx"))
    file = folder / "config.json"
    config = json.loads(file.read_text())
    inner = 4 * width
    config |= {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    file.write_text(json.dumps(config | {"intermediate_size": inner, "torch_dtype": "float16"}))
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.exists():
        pooling.write_text(
            json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": width})
        )
    random = np.random.default_rng(7)
    tensors: dict[str, NDArray[np.float16]] = {}

    def normal(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        tensors[name] = values.astype(np.float16)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = np.ones(width, np.float16)
        tensors[f"{name}.bias"] = np.zeros(width, np.float16)

    for name, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        normal(f"embeddings.{name}_embeddings.weight", rows, width)
    norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{number}" for number in range(layers)):
        for name, outputs, inputs in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            normal(f"{layer}.{name}.weight", outputs, inputs)
            normal(f"{layer}.{name}.bias", outputs)
        norm(f"{layer}.attention.output.LayerNorm")
        norm(f"{layer}.output.LayerNorm")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
