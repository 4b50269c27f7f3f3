"""The architectures: one file each, one visible forward pass each.

To add one, write its file and its line here.
"""

from typing import Any, Protocol

import msgspec

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import (
    bert,
    distilbert,
    gemma3_text,
    gte,
    jina_bert,
    modernbert,
    mpnet,
    nomic_bert,
    qwen3,
    roberta,
    static,
)
from embedsvc.inference.ops.base import Array, Batch, Inputs, Ops


class Architecture(Protocol):
    """What a file in this folder offers."""

    @property
    def UNUSED(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """How names of tensors begin that checkpoints carry and the hidden states do not need."""
        ...

    Config: type[Any]
    """What the pass reads of config.json: a msgspec struct.

    If it has a `longest`, that is the number of tokens that the pass can take of one text.
    """

    def prepare(self, ops: Ops, tensors: Tensors, config: Any, inputs: Inputs) -> Any:
        """Weights on the device from a checkpoint's tensors.

        Tables by position are for texts of up to `inputs.longest` tokens.
        """
        ...

    def forward(self, ops: Ops, weights: Any, config: Any, batch: Batch) -> Array:
        """Hidden states (N, D)."""
        ...


ARCHITECTURES: dict[str, Architecture] = {
    "bert": bert,
    "camembert": roberta,
    "distilbert": distilbert,
    "gemma3_text": gemma3_text,
    "gte": gte,
    "jina_bert": jina_bert,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "new": gte,
    "nomic_bert": nomic_bert,
    "qwen3": qwen3,
    "roberta": roberta,
    "static": static,
    "xlm-roberta": roberta,
}
"""By `model_type` in config.json."""
EXCEED_FLOAT16 = ("gemma3_text",)
"""Those whose activations do not fit in float16."""


def find_architecture(model_type: str, config: dict[str, Any]) -> Architecture | None:
    """The architecture of a checkpoint with that config.json, if there is one."""
    if model_type == "bert" and config.get("position_embedding_type") == "alibi":
        return jina_bert  # which calls itself BERT
    return ARCHITECTURES.get(model_type)


def read_config(architecture: Architecture, config: dict[str, Any]) -> Any:
    """What the architecture reads of config.json.

    Raises `msgspec.ValidationError` where that is missing, or asks for what is not supported.
    """
    return msgspec.convert(config, architecture.Config)


def table_rows(architecture: Architecture, config: Any, tensors: Tensors) -> int | None:
    """How many tokens there are vectors for, or None where only mlx-embeddings knows.

    Raises `CheckpointError`.
    """
    if architecture is static:
        return static.rows(tensors)
    return getattr(config, "rows", None)
