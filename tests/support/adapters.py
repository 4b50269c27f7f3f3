"""LoRA adapters of the tiny BERT, as PEFT saves them: `tests/reference/adapters.py` makes them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "reference" / "adapters"
BASE = "bert"
"""The case of `tests/support/tiny.py` that they are for."""
CASES: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["query", "value"], "r": 2, "lora_alpha": 8},
    "patterns": {
        "target_modules": r".*layer\.\d+\.(attention\.self\.key|output\.dense)",
        "r": 2,
        "lora_alpha": 4,
        "rank_pattern": {r"layer.1.*key": 4},
        "alpha_pattern": {r"layer.0.output.dense": 16, "key": 3},
        "use_rslora": True,
    },
    "magnitudes": {"target_modules": ["query", "dense"], "r": 2, "use_dora": True},
    "biases": {"target_modules": ["value", "word_embeddings"], "r": 2, "bias": "all"},
    "learned_bias": {"target_modules": ["query", "key"], "r": 2, "lora_bias": True},
    "whole": {
        "target_modules": ["query"],
        "r": 2,
        "modules_to_save": ["token_type_embeddings", "1.output.dense"],
        "fan_in_fan_out": True,
    },
}
"""What PEFT's `LoraConfig` is given for each."""


def recorded(name: str) -> NDArray[np.float32]:
    """The hidden states (N, D) of all texts of the case, with an adapter."""
    with np.load(FOLDER / "hidden.npz", allow_pickle=False) as arrays:
        return arrays[name]
