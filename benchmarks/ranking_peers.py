"""The servers that are compared at ranking documents, and the model that they all have."""

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.peers import (
    INFINITY,
    INFINITY_REQUIREMENTS,
    INFINITY_TORCH,
    LLAMA_CPP,
    LLAMA_CPP_BUILD,
    ON_CPU,
    ONNXRUNTIME,
    QUIET,
    SENTENCE_TRANSFORMERS,
    THREADS,
    Peer,
)

MODEL = "all-MiniLM-L6-v2"
"""What infinity calls its model; see `peers.INFINITY`."""
PATH = "/v1/rerank"
WRAPPER = ("{python}", "{here}/ranking_wrapper.py")
STATED = QUIET | {"INFINITY_ANONYMOUS_USAGE_STATS": "0"}
RANKERS = {
    peer.name: peer
    for peer in (
        Peer(
            "embedsvc",
            "this project, as it comes",
            ("{project}", "-m", "embedsvc", "serve", "--port", "{port}", "--models", "{cards}"),
            path=PATH,
            model="ranker",
            env={},
        ),
        Peer(
            "cross-encoder",
            f"sentence-transformers' CrossEncoder on torch, float32, {THREADS} threads, behind a "
            "20-line server",
            (*WRAPPER, "cross_encoder", "{model}", THREADS, "{port}"),
            "sentence-transformers",
            SENTENCE_TRANSFORMERS,
            path=PATH,
        ),
        Peer(
            "onnxruntime",
            f"ONNX Runtime, float32, {THREADS} threads, behind the same server",
            (*WRAPPER, "onnxruntime", "{model}", THREADS, "{port}"),
            "onnxruntime",
            ONNXRUNTIME,
            path=PATH,
            needs=("onnx-scores",),
        ),
        Peer(
            "infinity-torch",
            f"infinity on torch, float32, {THREADS} threads",
            (*INFINITY, *ON_CPU, *INFINITY_TORCH),
            "infinity",
            INFINITY_REQUIREMENTS,
            path=PATH,
            env=STATED,
        ),
        Peer(
            "infinity-optimum",
            f"infinity on ONNX Runtime, float32, {THREADS} threads",
            (*INFINITY, *ON_CPU, "--model-id", ".", "--engine", "optimum"),
            "infinity",
            INFINITY_REQUIREMENTS,
            cwd="{model}",  # it looks for ONNX files in its working directory
            path=PATH,
            needs=("onnx-scores",),
            env=STATED,
        ),
        Peer(
            "llama-cpp",
            f"llama.cpp, float32, {THREADS} threads, behind the same server",
            (*WRAPPER, "llama_cpp", "{model}", THREADS, "{port}"),
            "llama-cpp",
            LLAMA_CPP,
            build_env=LLAMA_CPP_BUILD,
            path=PATH,
            needs=("gguf-scores",),
        ),
    )
}
EXPORTS = {
    "onnx-scores": ("model.onnx", "cross-encoder"),
    "gguf-scores": ("model-scores-f32.gguf", "llama-cpp"),
}
"""For each kind of file: its name in the model's folder, and the server whose environment can make
it."""
LAYERS, WIDTH, HEADS, TOKENS = 6, 384, 12, 512
"""Of ms-marco-MiniLM-L6-v2, whose size the model has."""


def write_model(folder: Path, like: Path) -> Path:
    """Write a reranker with random weights, in float32, and the tokeniser of another checkpoint.

    Its scores are spread over some units, so that an order means something.
    """
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (like / name).exists():
            shutil.copy(like / name, folder / name)
    config = json.loads((like / "config.json").read_text())
    config |= {
        "architectures": ["BertForSequenceClassification"],
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": TOKENS,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    file = folder / "tokenizer_config.json"
    stated = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(stated | {"model_max_length": TOKENS, "max_length": TOKENS}))
    save_file(_tensors(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tensors(config: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(7)
    tensors: dict[str, NDArray[np.float32]] = {}

    def normal(name: str, *shape: int, size: float) -> None:
        tensors[name] = random.standard_normal(shape, dtype=np.float32) * np.float32(size)

    def linear(name: str, outputs: int, inputs: int) -> None:
        normal(f"{name}.weight", outputs, inputs, size=inputs**-0.5)
        normal(f"{name}.bias", outputs, size=0.02)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{name}.bias"] = np.zeros(WIDTH, np.float32)

    for name, rows in (
        ("word", config["vocab_size"]),
        ("position", TOKENS),
        ("token_type", config["type_vocab_size"]),
    ):
        normal(f"bert.embeddings.{name}_embeddings.weight", rows, WIDTH, size=0.05)
    norm("bert.embeddings.LayerNorm")
    for layer in (f"bert.encoder.layer.{number}" for number in range(LAYERS)):
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", WIDTH, WIDTH)
        linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        linear(f"{layer}.intermediate.dense", 4 * WIDTH, WIDTH)
        linear(f"{layer}.output.dense", WIDTH, 4 * WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        norm(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense", WIDTH, WIDTH)
    normal("classifier.weight", 1, WIDTH, size=0.2)
    normal("classifier.bias", 1, size=0.02)
    return tensors
