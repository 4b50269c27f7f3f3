"""The head of an embedding model: one vector for each text.

Hidden states are pooled on the device. The modules that sentence-transformers has after pooling,
and the normalisation, follow on the host in float32.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.modules import Activation, Dense, LayerNorm, Step, Truncate
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.base import Array, Batch, Ops
from embedsvc.texts.item import Item

PER: Literal["text"] = "text"
GIVES = "vectors"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """What follows the hidden states, in this order."""

    poolings: tuple[Pooling, ...]
    """Their results are put side by side if there are several."""
    steps: tuple[Callable[[Floats], Floats], ...]
    """The modules after the pooling, as functions of vectors (B, D)."""
    normalize: bool


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The modules after pooling."""
    steps = tuple(_load(checkpoint.card.id, step) for step in checkpoint.steps)
    return Weights(checkpoint.pooling, steps, checkpoint.normalize)


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """One row for each text: the poolings of its rows (N, D) side by side (B, D * poolings)."""
    return ops.pool(hidden, batch.layout, weights.poolings)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The vector of each item (D,), float32. Raises `EmbeddingFailed`."""
    vectors = after_pooling(weights, np.asarray(rows)).astype("<f4", copy=False)
    return [vector.tobytes() for vector in vectors]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """Vectors (n, D), in an array that the caller may change."""
    rows = bytearray().join(results)  # many times faster than np.stack
    return np.frombuffer(rows, "<f4").reshape(len(results), -1)


def after_pooling(weights: Weights, pooled: Floats) -> Floats:
    """Vectors from pooled rows (n, D): through the modules that follow, and normalised if asked
    for.

    Raises `EmbeddingFailed` if one is not finite, or is zero.
    """
    for step in weights.steps:
        pooled = step(pooled)
    return check_finite(pooled, normalize=weights.normalize)


def check_finite(vectors: Floats, *, normalize: bool) -> Floats:
    """The vectors, scaled to unit length if `normalize`.

    Raises `EmbeddingFailed` if one is not finite, or is zero.

    >>> check_finite(np.array([[0, 2]], np.float32), normalize=True).tolist()
    [[0.0, 1.0]]
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(length).all() or not length.all():
        raise EmbeddingFailed("The model gave no finite, non-zero vector for this input.")
    return vectors / length if normalize else vectors


def _load(model: str, step: Step) -> Callable[[Floats], Floats]:
    """A module after pooling, as a function of vectors (n, D)."""
    if isinstance(step, Dense):
        return _dense(model, step)
    if isinstance(step, LayerNorm):
        return _layer_norm(model, step)
    if isinstance(step, Truncate):
        return lambda vectors: vectors[:, : step.size]
    return lambda vectors: check_finite(vectors, normalize=True)


def _dense(model: str, dense: Dense) -> Callable[[Floats], Floats]:
    tensors = Tensors(model, dense.folder)
    weight = tensors.take(f"{dense.name}.weight", dense.outputs, dense.inputs).T
    bias = tensors.take(f"{dense.name}.bias", dense.outputs) if dense.bias else np.float32(0)
    projected = dense.residual and dense.inputs != dense.outputs
    residual = tensors.take("residual.weight", dense.outputs, dense.inputs).T if projected else None
    if dense.own_folder:
        tensors.refuse_left_over(())
    activation = ACTIVATIONS[dense.activation]

    def run(vectors: Floats) -> Floats:
        _check_width(tensors, "in_features", dense.inputs, vectors)
        out = activation(vectors @ weight + bias)
        if dense.residual:
            out = out + (vectors if residual is None else vectors @ residual)
        return out

    return run


def _layer_norm(model: str, norm: LayerNorm) -> Callable[[Floats], Floats]:
    tensors = Tensors(model, norm.folder)
    weight, bias = (tensors.take(f"norm.{name}", norm.size) for name in ("weight", "bias"))
    tensors.refuse_left_over(())

    def run(vectors: Floats) -> Floats:
        _check_width(tensors, "dimension", norm.size, vectors)
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(1e-5)) * weight + bias

    return run


def _check_width(tensors: Tensors, key: str, stated: int, vectors: Floats) -> None:
    """Raise `CheckpointError` unless vectors are as wide as a module takes them."""
    found = vectors.shape[1]
    if found != stated:
        raise tensors.error(f"`{key}` is {stated}, and vectors have {found} dimensions there")


def _sigmoid(x: Floats) -> Floats:
    return np.float32(0.5) * (np.tanh(x * np.float32(0.5)) + np.float32(1))


def _gelu(x: Floats) -> Floats:
    scaled = x.ravel() / np.float32(math.sqrt(2))
    erf: Floats = np.fromiter(map(math.erf, scaled), np.float32, scaled.size)
    erf += np.float32(1)
    return x * np.float32(0.5) * erf.reshape(x.shape)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
    "Sigmoid": _sigmoid,
    "SiLU": lambda x: x * _sigmoid(x),
    "GELU": _gelu,
}
"""Activations, by the names of torch.nn's classes."""
