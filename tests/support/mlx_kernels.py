"""Counts the kernels that a pass on MLX launches on Apple's GPUs, on a machine without one.

The pass is traced and not run. What MLX has one kernel for there, and several on a CPU, is replaced
by a stand-in of one. Views cost nothing, unless one has to be copied because of how it lies in
memory: for that each array of the graph has one of NumPy beside it, which lies as it does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.inference.ops.mlx.fusing import Fused
from embedsvc.inference.ops.mlx.narrow_heads import FUSED_SIZES

Layout = NDArray[np.int8]
"""Stands for an array of the graph: only its shape and its strides count."""
FUSED_SIZES_OF_FEW = (64, 96, 128, 256)
"""Widths of the heads that Metal's fused attention takes, of up to 8 queries."""
RESHAPES = ("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze")


@contextmanager
def as_on_metal() -> Iterator[None]:
    """Have MLX build the graph of a Mac's GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx.fast, "layer_norm", _norm)
        patch.setattr(mx.fast, "rms_norm", _norm)
        attention = _attention(mx.fast.scaled_dot_product_attention)
        patch.setattr(mx.fast, "scaled_dot_product_attention", attention)
        patch.setattr(mx, "compile", _compile)
        patch.setattr("embedsvc.inference.ops.mlx.Fused", lambda **_: Fused(compiled=True))
        yield


def count(function: Callable[..., mx.array], *inputs: mx.array) -> int:
    """The kernels of `function(*inputs)`."""
    layouts: dict[str, Layout] = {}
    launched = 0

    def note(entry: dict[str, Any]) -> None:
        nonlocal launched
        if entry["type"] in ("inputs", "constants"):
            for name, *rest in entry[entry["type"]]:
                layouts[name] = _contiguous(rest[0] if len(rest) == 2 else rest[0].shape)
        elif entry["type"] == "primitive":
            read = [layouts.get(name, _contiguous(shape)) for name, shape, _ in entry["inputs"]]
            ((written, shape, _),) = entry["outputs"]
            layouts[written], kernels = _run(entry["name"], read, entry["arguments"], shape)
            launched += kernels

    mx.export_function(note, function, *inputs)
    return launched


def _run(
    name: str, read: Sequence[Layout], arguments: Sequence[Any], shape: tuple[int, ...]
) -> tuple[Layout, int]:
    """How the result of a primitive lies in memory, and the kernels that it takes."""
    if name == "Broadcast":
        return np.broadcast_to(read[0], shape), 0
    if name == "Transpose":
        return read[0].transpose(arguments[0]), 0
    if name == "Slice":
        cuts = zip(*arguments, strict=True)
        return read[0][tuple(slice(a, None if b < 0 else b, step) for a, b, step in cuts)], 0
    if name in RESHAPES:
        try:
            return read[0].reshape(shape, copy=False), 0
        except ValueError:
            return _contiguous(shape), 1
    kernels = {"Concatenate": len(read), "Pad": 2}.get(name, 1)
    return _contiguous(shape), kernels


def _contiguous(shape: tuple[int, ...]) -> Layout:
    return np.empty(shape, np.int8)  # of which no byte is ever touched


def _kernel(like: mx.array, read: Sequence[mx.array]) -> mx.array:
    """What stands for the result of one kernel, shaped like an array."""
    result = mx.broadcast_to(mx.array(0, dtype=like.dtype), like.shape)
    return mx.depends([result], list(read))[0]


def _norm(x: mx.array, *rest: Any) -> mx.array:
    weights = [each for each in rest if isinstance(each, mx.array)]
    return _kernel(x, [x.reshape(-1), *weights])  # it reads x from contiguous memory


def _compile(function: Callable[..., mx.array], **options: Any) -> Callable[..., mx.array]:
    return lambda *read: _kernel(function(*read), read)


def _attention(on_cpu: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def attend(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
        if q.shape[-1] not in (FUSED_SIZES if q.shape[2] > 8 else FUSED_SIZES_OF_FEW):
            return on_cpu(q, k, v, **options)
        mask = options["mask"]
        read = [q, k, v, *([] if isinstance(mask, str) else [mask])]
        # It writes the heads of a row side by side.
        return _kernel(q.transpose(0, 2, 1, 3), read).transpose(0, 2, 1, 3)

    return attend
