"""The small layers that pooled rows go through, on the host and in float32.

They are sentence-transformers' modules after the pooling, and the last layers of classifiers. Half
precision would give many documents the same score.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints import modules
from embedsvc.checkpoints.steps import Dense, LayerNorm, RoundTanh, Step, Truncate
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.activations import Activation, Name
from embedsvc.inference.ops.numpy.activations import activate

Floats = NDArray[np.float32]
RowStep = Callable[[Floats], Floats]
"""A layer, as a function of rows (n, D)."""


NONE = Activation("linear")


def linear(weight: Floats, bias: Floats | None, activation: Activation = NONE) -> RowStep:
    """A linear layer from a weight (out, in) and a bias (out,), and an activation."""
    turned, shift = np.ascontiguousarray(weight.T), np.float32(0) if bias is None else bias
    return lambda rows: activate(rows @ turned + shift, activation)


def layer_norm(weight: Floats, bias: Floats | None, eps: float) -> RowStep:
    """A layer norm."""

    def run(rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        normed = centred / np.sqrt(variance + np.float32(eps)) * weight
        return normed if bias is None else normed + bias

    return run


def load_module(model: str, step: Step) -> RowStep:
    """A module after the pooling. Raises `CheckpointError`."""
    if isinstance(step, Dense):
        return _dense(model, step)
    if isinstance(step, LayerNorm):
        return _layer_norm(model, step)
    if isinstance(step, Truncate):
        return lambda rows: rows[:, : step.size]
    if isinstance(step, RoundTanh):
        return lambda rows: np.rint(np.tanh(rows) * np.float32(127))
    return lambda rows: check_finite(rows, normalize=True)


def dense_tensors(tensors: Tensors, dense: Dense) -> tuple[Floats, Floats | None, Floats | None]:
    """The weight (out, in) of a Dense module, its bias, and the weight (out, in) by which what goes
    in is added to what comes out. Raises `CheckpointError`."""
    shape = dense.outputs, dense.inputs
    weight = tensors.take(f"{dense.name}.weight", *shape)
    bias = tensors.take(f"{dense.name}.bias", dense.outputs) if dense.bias else None
    projected = dense.residual and dense.inputs != dense.outputs
    residual = tensors.take("residual.weight", *shape) if projected else None
    if dense.own_folder:
        tensors.refuse_left_over(())
    return weight, bias, residual


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


def _dense(model: str, dense: Dense) -> RowStep:
    tensors = Tensors(model, dense.folder)
    weight, bias, residual = dense_tensors(tensors, dense)
    layer = linear(weight, bias, Activation(OF_TORCH[dense.activation]))

    def run(vectors: Floats) -> Floats:
        _check_width(tensors, "in_features", dense.inputs, vectors)
        out = layer(vectors)
        if dense.residual:
            out = out + (vectors if residual is None else vectors @ residual.T)
        return out

    return run


def _layer_norm(model: str, norm: LayerNorm) -> RowStep:
    tensors = Tensors(model, norm.folder)
    weight, bias = (tensors.take(f"norm.{name}", norm.size) for name in ("weight", "bias"))
    tensors.refuse_left_over(())
    layer = layer_norm(weight, bias, 1e-5)

    def run(vectors: Floats) -> Floats:
        _check_width(tensors, "dimension", norm.size, vectors)
        return layer(vectors)

    return run


def _check_width(tensors: Tensors, key: str, stated: int, vectors: Floats) -> None:
    """Raise `CheckpointError` unless vectors are as wide as a module takes them."""
    found = vectors.shape[1]
    if found != stated:
        raise tensors.error(f"`{key}` is {stated}, and vectors have {found} dimensions there")


OF_TORCH: dict[modules.Activation, Name] = {
    "GELU": "gelu",
    "Hardswish": "hardswish",
    "Identity": "linear",
    "LeakyReLU": "leaky_relu",
    "Mish": "mish",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Tanh": "tanh",
}
"""Activations by the names of torch.nn's classes."""
