"""The head of a model that guesses words: logits for the whole vocabulary, for each token.

Names of tensors are those of transformers' classes `...ForMaskedLM`, without what holds the
backbone ("bert.").
"""

from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import Array, Linear, Norm, Ops

BLOCK = 2048
"""Tokens of the vocabulary whose logits are in memory at once, for all tokens of a batch."""


ACTIVATIONS: tuple[HiddenAct, ...] = get_args(HiddenAct)


class Names(NamedTuple):
    """Where a class keeps its head, and what its config.json says of it."""

    dense: str
    norm: str
    decoder: str
    """The last layer, which may lack a weight: it is then that of the word embeddings."""
    bias: str
    """The bias of that layer, where it is not `decoder.bias`."""
    words: str = "embeddings.word_embeddings.weight"
    eps: str | float = "layer_norm_eps"
    activation: str = ""
    """A key of config.json; without one it is GELU."""
    dense_bias: str = ""
    """A key by which the first layer has a bias; without one it has."""
    norm_bias: str = ""
    learned: str = ""
    """What holds the numbers of an activation that has some."""


ROBERTA = Names("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
PREDICTIONS = "cls.predictions"
NAMES = {
    "bert": Names(
        f"{PREDICTIONS}.transform.dense",
        f"{PREDICTIONS}.transform.LayerNorm",
        f"{PREDICTIONS}.decoder",
        f"{PREDICTIONS}.bias",
        activation="hidden_act",
        learned=f"{PREDICTIONS}.transform.transform_act_fn",
    ),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "mpnet": ROBERTA,
    "distilbert": Names(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        "vocab_projector.bias",
        eps=1e-12,
        activation="activation",
        learned="activation",
    ),
    "modernbert": Names(
        "head.dense",
        "head.norm",
        "decoder",
        "decoder.bias",
        words="embeddings.tok_embeddings.weight",
        eps="norm_eps",
        activation="classifier_activation",
        learned="head.act",
        dense_bias="classifier_bias",
        norm_bias="norm_bias",
    ),
}
"""By `model_type`."""


class MaskedLm(NamedTuple):
    """The layers, on the device."""

    dense: Linear
    activation: Activation
    norm: Norm
    eps: float
    vocabulary: tuple[Linear, ...]
    """The last layer, in blocks of the vocabulary."""


def check(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` unless the masked-LM head of a checkpoint is supported."""
    names = NAMES.get(checkpoint.model_type)
    if names is None:
        raise checkpoint.error(
            f"config.json: sparse vectors of model_type `{checkpoint.model_type}` are not supported"
        )
    if _activation(checkpoint, names) not in ACTIVATIONS:
        raise checkpoint.error(
            f"config.json: `{names.activation}` of `{_activation(checkpoint, names)}` is not "
            "supported in a masked-LM head"
        )


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> MaskedLm:
    """The layers of a checkpoint. Raises `CheckpointError` that names the tensor."""
    config, names = checkpoint.config, NAMES[checkpoint.model_type]
    width, rows = size_of(checkpoint)
    bias = not names.dense_bias or bool(config.get(names.dense_bias))
    dense = ops.linear_layer(
        tensors.take_weight(f"{names.dense}.weight", width, width),
        tensors.take(f"{names.dense}.bias", width) if bias else None,
    )
    shift = not names.norm_bias or bool(config.get(names.norm_bias))
    norm = Norm(
        ops.array(tensors.take(f"{names.norm}.weight", width)),
        ops.array(tensors.take(f"{names.norm}.bias", width)) if shift else None,
    )
    eps = float(config[names.eps]) if isinstance(names.eps, str) else names.eps
    weight, shifts = _last_layer(tensors, checkpoint, names, rows, width)
    vocabulary = tuple(
        ops.linear_layer(
            weight[first : first + BLOCK], None if shifts is None else shifts[first : first + BLOCK]
        )
        for first in range(0, rows, BLOCK)
    )
    activation = read_activation(tensors, _activation(checkpoint, names), names.learned)
    return MaskedLm(dense, activation, norm, eps, vocabulary)


def transformed(ops: Ops, layers: MaskedLm, hidden: Array) -> Array:
    """What the last layer is given (N, D), from hidden states (N, D)."""

    def run(x: Array) -> Array:
        x = ops.activate(ops.linear(x, layers.dense), layers.activation)
        return ops.layer_norm(x, layers.norm, layers.eps)

    return ops.rows(run, hidden)


def size_of(checkpoint: Checkpoint) -> tuple[int, int]:
    """Columns and rows of the last layer."""
    config: dict[str, Any] = checkpoint.config
    width = config["dim"] if checkpoint.model_type == "distilbert" else config["hidden_size"]
    return width, config["vocab_size"]


def _last_layer(
    tensors: Tensors, checkpoint: Checkpoint, names: Names, rows: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Its weight (V, D) and bias (V,)."""
    weight = f"{names.decoder}.weight"
    tied = checkpoint.config.get("tie_word_embeddings", True) or weight not in tensors
    # The architecture has taken the word embeddings.
    matrix = (checkpoint.tensors() if tied else tensors).take(
        names.words if tied else weight, rows, width
    )
    for bias in (f"{names.decoder}.bias", names.bias):
        if bias in tensors:
            return matrix, tensors.take(bias, rows)
    if names.dense_bias and checkpoint.config.get("decoder_bias") is False:
        return matrix, None
    raise tensors.error(f"tensor `{names.bias}` is missing")


def _activation(checkpoint: Checkpoint, names: Names) -> Any:
    return checkpoint.config.get(names.activation, "gelu") if names.activation else "gelu"
