"""Records what the reference makes of the tiny classifiers in `tests/support/classifiers.py`.

The reference is transformers, and sentence-transformers' CrossEncoder for heads that are modules,
both in float64; `float64.py` beside this for what lives in model repositories only:

    python -m tests.reference.classifiers [NAME ...]

Each text or pair goes through the model alone.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification

from embedsvc.texts.item import Item
from tests.reference.architectures import HERE
from tests.reference.float64 import Tensors, jina_bert
from tests.support.classifiers import CLASSIFIERS, Classifier

Score = Callable[[Item], NDArray[Any]]


def transformers(case: Classifier, folder: Path) -> Score:
    """By transformers; where it calls the holder of the backbone by another name, by that."""
    if case.reference:
        (folder / "config.json").write_text(json.dumps(case.reference), encoding="utf-8")
        renamed = {name.replace("new.", "gte.", 1): value for name, value in case.tensors().items()}
        save_file(renamed, folder / "model.safetensors")
    model, about = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    wrong = {key: about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise SystemExit(f"{folder}: {wrong}")
    model.eval()
    return lambda item: model(**_as_batch(case, item)).logits[0].numpy()


def modules(case: Classifier, folder: Path) -> Score:
    """By sentence-transformers."""
    model = CrossEncoder(str(folder), device="cpu").double().eval()

    def score(item: Item) -> NDArray[Any]:
        features = _as_batch(case, item) | {"attention_mask": torch.ones(1, len(item.ids))}
        return model(features)["scores"][0].numpy()

    return score


def jina(case: Classifier, folder: Path) -> Score:
    """By `float64.py`, and BERT's pooler and last layer."""
    return jina_scores(case.tensors(), case.config)


def jina_scores(named: Tensors, config: dict[str, Any]) -> Score:
    """The same, of tensors by the names that checkpoints have for them."""
    tensors = {name.removeprefix("bert."): value for name, value in named.items()}

    def score(item: Item) -> NDArray[Any]:
        types = 0 if item.types is None else item.types
        first = jina_bert(tensors, config, item.ids, types)[0]
        for name, function in (("pooler.dense", np.tanh), ("classifier", np.array)):
            weight, bias = (tensors[f"{name}.{part}"].astype("f8") for part in ("weight", "bias"))
            first = function(weight @ first + bias)
        return first

    return score


def _as_batch(case: Classifier, item: Item) -> dict[str, Any]:
    ids = {"input_ids": torch.tensor(item.ids[None].astype(np.int64))}
    if case.config.get("type_vocab_size", 1) < 2:
        return ids
    types = np.zeros_like(item.ids) if item.types is None else item.types
    return ids | {"token_type_ids": torch.tensor(types[None].astype(np.int64))}


@torch.no_grad()
def main() -> None:
    """Writes a file for each case, or for those that are named."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CLASSIFIERS:
        case = CLASSIFIERS[name]
        reference = modules if case.modules else jina if "jina" in name else transformers
        with tempfile.TemporaryDirectory() as folder:
            score = reference(case, case.write(Path(folder)))
            scores = [score(item) for item in case.items()]
        print(f"{name}: {np.shape(scores)}, {np.abs(scores).mean():.2f} on average")
        np.savez(HERE / f"{name}.npz", scores=np.stack(scores).astype(np.float32))


if __name__ == "__main__":
    main()
