"""The head of rerankers and classifiers: scores for a pair of texts, or for a text.

Hidden states are pooled on the device. What follows is done on the host in float32: the last layers
of a class of transformers, or sentence-transformers' modules. Scores are what these give, without a
sigmoid or a softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.pair_template import DECODERS
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads.classifiers import CLASSIFIERS, Reader, logit_score
from embedsvc.inference.heads.pooled import pool, read_by
from embedsvc.inference.heads.steps import RowStep, load_module
from embedsvc.inference.ops.base import Array, Batch, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["text"] = "text"
GIVES = "scores"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    poolings: tuple[Pooling, ...]
    steps: tuple[RowStep, ...]
    """From pooled rows (n, D) to scores (n, labels)."""
    labels: int


def check(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` unless it is known what a checkpoint's scores are made by."""
    known = CLASSIFIERS.get(checkpoint.class_name)
    if checkpoint.pooling:  # by modules
        return
    if checkpoint.scoring is not None and checkpoint.scoring.logit_score is not None:
        if checkpoint.model_type not in DECODERS:
            raise checkpoint.error(
                f"config.json: logits of model_type `{checkpoint.model_type}` are not supported"
            )
        return
    if known is None or checkpoint.model_type not in known.model_types:
        of = f" of model_type `{checkpoint.model_type}`" if known else ""
        raise checkpoint.error(f"config.json: `{checkpoint.class_name}` is not supported{of}")


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The layers after the pooling, on the host."""
    labels = checkpoint.labels
    if checkpoint.pooling:
        steps = tuple(load_module(checkpoint.card.id, step) for step in checkpoint.steps)
        return Weights(checkpoint.pooling, steps, labels)
    tokens = checkpoint.scoring.logit_score if checkpoint.scoring else None
    if tokens is not None:
        pooling, steps = logit_score(tensors, checkpoint, tokens)
    else:
        classifier = CLASSIFIERS[checkpoint.class_name]
        pooling, steps = classifier.layers(Reader(tensors, checkpoint, labels))
    return Weights((pooling,), steps, labels)


def reads(weights: Weights) -> Read:
    """The rows of each text that are pooled."""
    return read_by(weights.poolings)


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """One row for each text: the poolings of its rows side by side (B, D * poolings)."""
    return pool(ops, hidden, batch, weights.poolings)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The scores of each item (labels,), float32. Raises `EmbeddingFailed`."""
    scores = np.asarray(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in weights.steps:
            scores = step(scores)
    if not np.isfinite(scores).all():
        raise EmbeddingFailed("The model gave no finite score for this input.")
    return [row.astype("<f4", copy=False).tobytes() for row in scores]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """Scores (n, labels)."""
    return np.frombuffer(b"".join(results), "<f4").reshape(len(results), -1)
