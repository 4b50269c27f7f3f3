"""The head of a classifier: scores for a text, or for a pair of texts, as rerankers give them.

It is BERT's: the hidden state of the first token goes through a layer with tanh, the pooler of the
paper (Devlin et al., 2018, arXiv:1810.04805), and a last layer with an output for each label.
Scores are these outputs as they are, without a sigmoid or a softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.base import Array, Batch, Linear, Ops
from embedsvc.texts.item import Item

PER: Literal["text"] = "text"
GIVES = "scores"
CLASSES = ("BertForSequenceClassification",)
"""Classes of transformers whose tensors have the names that are used here."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    dense: Linear  # D -> D
    out: Linear  # D -> labels


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The two layers, from tensors under transformers' names."""
    width = checkpoint.config["hidden_size"]
    match tensors.shape("classifier.bias"):
        case (int(labels),) if labels:
            pass
        case shape:
            raise tensors.error(f"tensor `classifier.bias` has shape {shape}, not (labels,)")

    def linear(name: str, outputs: int) -> Linear:
        weight = tensors.take_weight(f"{name}.weight", outputs, width)
        return ops.linear_layer(weight, tensors.take(f"{name}.bias", outputs))

    return Weights(linear("pooler.dense", width), linear("classifier", labels))


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """Scores (B, labels)."""
    pooled = ops.pool(hidden, batch.layout, ["cls"])
    return ops.linear(ops.tanh(ops.linear(pooled, weights.dense)), weights.out)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The scores of each item (labels,), float32. Raises `EmbeddingFailed`."""
    if not all(np.isfinite(row).all() for row in rows):
        raise EmbeddingFailed("The model gave no finite score for this input.")
    return [row.astype("<f4", copy=False).tobytes() for row in rows]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """Scores (n, labels)."""
    return np.frombuffer(b"".join(results), "<f4").reshape(len(results), -1)
