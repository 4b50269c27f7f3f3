"""From hidden states to vectors: pooling on the device, what follows it in NumPy."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.modules import Activation, Dense, LayerNorm, Step, Truncate
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.base import Array, Ops

Floats = NDArray[np.float32]

POOL: dict[Pooling, Callable[[Ops, Array, Any], Array]] = {
    "mean": lambda ops, hidden, layout: ops.segment_mean(hidden, layout),
    "cls": lambda ops, hidden, layout: ops.segment_first(hidden, layout),
    "last_token": lambda ops, hidden, layout: ops.segment_last(hidden, layout),
    "max": lambda ops, hidden, layout: ops.segment_max(hidden, layout),
    "mean_sqrt_len": lambda ops, hidden, layout: ops.segment_mean_sqrt(hidden, layout),
    "weighted_mean": lambda ops, hidden, layout: ops.segment_weighted_mean(hidden, layout),
}
"""Hidden states (N, D) and a layout to one row per text (B, D)."""


def pool(ops: Ops, poolings: Sequence[Pooling], hidden: Array, layout: Any) -> Array:
    """One row per text: the poolings of its rows (N, D) side by side (B, D * poolings)."""
    parts = [POOL[pooling](ops, hidden, layout) for pooling in poolings]
    return parts[0] if len(parts) == 1 else ops.side_by_side(parts)


def load_steps(model: str, steps: Sequence[Step]) -> list[Callable[[Floats], Floats]]:
    """The modules after pooling as functions of vectors (B, D), their weights read.

    Raises `CheckpointError` that names the tensor that is missing or wrong.
    """
    return [_load(model, step) for step in steps]


def finish(pooled: Floats, *, normalize: bool) -> Floats:
    """Vectors (B, D) that are finite and not zero, of unit length if `normalize`.

    Raises `EmbeddingFailed` if a row cannot be that.
    """
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    if not np.isfinite(length).all() or not length.all():
        raise EmbeddingFailed("The model gave no finite, non-zero vector for this input.")
    return pooled / length if normalize else pooled


def _load(model: str, step: Step) -> Callable[[Floats], Floats]:
    if isinstance(step, Dense):
        return _dense(model, step)
    if isinstance(step, LayerNorm):
        return _layer_norm(model, step)
    if isinstance(step, Truncate):
        return lambda vectors: vectors[:, : step.size]
    return lambda vectors: finish(vectors, normalize=True)


def _dense(model: str, dense: Dense) -> Callable[[Floats], Floats]:
    tensors = Tensors(model, dense.folder)
    weight = tensors.take("linear.weight", dense.outputs, dense.inputs).T
    bias = tensors.take("linear.bias", dense.outputs) if dense.bias else np.float32(0)
    projected = dense.residual and dense.inputs != dense.outputs
    residual = tensors.take("residual.weight", dense.outputs, dense.inputs).T if projected else None
    tensors.finish(())
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
    tensors.finish(())

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
"""torch.nn's, by the names of its classes."""
