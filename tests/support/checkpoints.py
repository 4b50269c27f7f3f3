"""Tiny random checkpoints in Hub layout, written in milliseconds and never committed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "hello", "world"]
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def write_bert(folder: Path, *, pooling: str | None = "mean_tokens", **config: Any) -> Path:
    """A BERT with a pooling and a normalise module, or without modules (`pooling=None`)."""
    merged = CONFIG | config
    write_json(folder / "config.json", merged)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32})
    if pooling is not None:
        write_pooling(folder, pooling)
    write_tokenizer(folder)
    save_file(bert_tensors(merged), folder / "model.safetensors")
    return folder


def write_pooling(folder: Path, pooling: str) -> None:
    """Write modules.json, with a pooling and a normalise module."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{pooling}": True})


def write_modules(folder: Path, *modules: tuple[str, dict[str, Any]]) -> None:
    """Write modules.json, and a folder with random weights, if any, for each (kind, config)."""
    listed = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, (kind, config) in enumerate(modules, 1):
        path = f"{i}_{kind}"
        listed.append({"path": path, "type": f"sentence_transformers.models.{kind}"})
        write_json(folder / path / "config.json", config)
        shapes: dict[str, tuple[int, ...]] = {}
        if kind == "Dense":
            inputs, outputs = config["in_features"], config["out_features"]
            shapes = {"linear.weight": (outputs, inputs)}
            if config.get("bias", True):
                shapes["linear.bias"] = (outputs,)
            if config.get("use_residual") and inputs != outputs:
                shapes["residual.weight"] = (outputs, inputs)
        if kind == "LayerNorm":
            shapes = {"norm.weight": (config["dimension"],), "norm.bias": (config["dimension"],)}
        if shapes:
            random = np.random.default_rng(i)
            tensors = {
                name: random.normal(0, 0.5, shape).astype("f") for name, shape in shapes.items()
            }
            save_file(tensors, folder / path / "model.safetensors")
    for i, module in enumerate(listed):
        module |= {"idx": i, "name": str(i)}
    write_json(folder / "modules.json", listed)


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    # Training leaves these in such files. A server must ignore them.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def bert_tensors(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Random tensors under transformers' names."""
    random = np.random.default_rng(7)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        for name, inputs, outputs in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", width, inner),
            ("output.dense", inner, width),
        ):
            shapes[f"encoder.layer.{i}.{name}.weight"] = (outputs, inputs)
            shapes[f"encoder.layer.{i}.{name}.bias"] = (outputs,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{i}.{name}.weight"] = (width,)
            shapes[f"encoder.layer.{i}.{name}.bias"] = (width,)
    return {
        name: random.normal(scale=0.3, size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
