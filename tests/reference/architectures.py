"""Records what the reference makes of the tiny checkpoints in `tests/support/tiny.py`.

The reference is transformers, in float64; sentence-transformers for static embeddings and for
pooling; and `float64.py` beside this for what lives in model repositories only. The tests read what
this writes to architectures/, so they need neither:

    python -m tests.reference.architectures [NAME ...]

Each text goes through the model alone.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding
from transformers import AutoModel, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from tests.reference.float64 import jina_bert, nomic_bert_moe
from tests.support.ropes import STRETCHED
from tests.support.tiny import CASES, Case

HERE = Path(__file__).parent / "architectures"
PACKAGES = ("sentence-transformers", "transformers", "torch", "numpy")
OWN = {
    "jina_bert": jina_bert,
    "jina_bert-code": jina_bert,
    "nomic_bert-moe": nomic_bert_moe,
}
POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}

FAR = ((64, 1000, 8192), (64, 10_000, 8192), (64, 160_000, 8192), (128, 1_000_000, 32768))
"""Sizes of heads, bases of rotary positions, and positions."""


def reference(name: str, case: Case, folder: Path) -> Callable[[NDArray[np.int32]], Any]:
    """From the token ids of a text to its hidden states (L, D)."""
    if name in OWN:
        tensors = case.tensors()
        return lambda ids: OWN[name](tensors, case.config, ids)
    if case.config["model_type"] == "static":
        table = StaticEmbedding.load(str(folder)).embedding.weight.detach().numpy()
        return lambda ids: table[ids]
    if case.reference:
        (folder / "config.json").write_text(json.dumps(case.reference), encoding="utf-8")
    model, about = AutoModel.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    wrong = {key: about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(key for keys in wrong.values() for key in keys if "pooler" not in key):
        raise SystemExit(f"{name}: {wrong}")
    model.eval()
    return lambda ids: model(torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0].numpy()


def far_rotations() -> dict[str, NDArray[np.float32]]:
    """Cosines, then sines, at the last position of some models, as transformers has them."""
    rows: dict[str, NDArray[np.float32]] = {}
    for size, base, length in FAR:
        parameters = {"rope_theta": base, "rope_type": "default"}
        config = Qwen3Config(head_dim=size, rope_parameters=parameters)
        cos, sin = Qwen3RotaryEmbedding(config)(torch.ones(1), torch.tensor([[length - 1]]))
        halves = [turn[0, 0, : size // 2].numpy() for turn in (cos, sin)]
        rows[f"{size} {base} {length}"] = np.concatenate(halves)
    return rows


def stretched_rotations() -> dict[str, NDArray[np.float64]]:
    """What each element turns by from one position to the next, and last of all what cosines and
    sines are multiplied by, for each of `STRETCHED`."""
    found: dict[str, NDArray[np.float64]] = {}
    for name, (size, positions, rope) in STRETCHED.items():
        config = Qwen3Config(
            head_dim=size, max_position_embeddings=positions, rope_parameters=dict(rope)
        )
        turns, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
        found[name] = np.append(turns.numpy().astype(np.float64), scale)
    return found


def vector(case: Case, hidden: NDArray[Any]) -> NDArray[np.float32]:
    """What sentence-transformers' modules make of hidden states (L, D): (D,)."""
    features = {
        "token_embeddings": torch.tensor(hidden[None].astype(np.float64)),
        "attention_mask": torch.ones(1, len(hidden), dtype=torch.int64),
    }
    for module in (Pooling(hidden.shape[1], POOLINGS[case.pooling]), Normalize()):
        features = module(features)
    return features["sentence_embedding"][0].numpy()


@torch.no_grad()
def main() -> None:
    """Writes a file for each case, or for those that are named, and which versions made them."""
    HERE.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            forward = reference(name, case, case.write(Path(folder)))
            hidden = [forward(ids) for ids in case.texts()]
        vectors = np.stack([vector(case, states) for states in hidden])
        rows = np.concatenate(hidden)
        print(f"{name}: {rows.shape}, {np.abs(rows).mean():.2f} on average")
        np.savez(
            HERE / f"{name}.npz",
            hidden=rows.astype(np.float32),
            vectors=vectors.astype(np.float32),
        )
    np.savez(HERE / "rotations.npz", **far_rotations())
    np.savez(HERE / "stretched.npz", **stretched_rotations())
    versions = {package: version(package) for package in PACKAGES}
    about = json.dumps(versions | {"python": platform.python_version()}, indent=1)
    (HERE / "versions.json").write_text(about + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
