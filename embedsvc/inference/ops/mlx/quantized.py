"""Quantised weights on MLX, which multiplies by them as they are packed."""

# MLX's stubs leave *args untyped.
# pyright: reportUnknownMemberType=false

from dataclasses import replace

import mlx.core as mx

from embedsvc.checkpoints.quantized import Quantized


def on_device(weight: Quantized, dtype: mx.Dtype) -> Quantized:
    """The matrix (out, in) in arrays of MLX; scales and biases in the dtype that passes have."""
    packed = mx.array(weight.packed)
    if weight.mode != "affine":  # scales are codes, and stay as they are
        return replace(weight, packed=packed, scales=mx.array(weight.scales))
    scales, biases = (mx.array(each).astype(dtype) for each in (weight.scales, weight.biases))
    mx.eval(scales, biases)  # now, so that the first pass need not do it for all weights
    return replace(weight, packed=packed, scales=scales, biases=biases)


def rows(table: Quantized, indices: mx.array, dtype: mx.Dtype) -> mx.array:
    """Rows (N, in) of a matrix, expanded."""
    found = mx.dequantize(
        table.packed[indices],
        table.scales[indices],
        None if table.biases is None else table.biases[indices],
        group_size=table.group_size,
        bits=table.bits,
        mode=table.mode,
        dtype=dtype,
    )
    return found if table.factor == 1 else found * table.factor


def product(x: mx.array, weight: Quantized) -> mx.array:
    """x (N, in) times the matrix (out, in), transposed: (N, out)."""
    found = mx.quantized_matmul(
        x,
        weight.packed,
        scales=weight.scales,
        biases=weight.biases,
        group_size=weight.group_size,
        bits=weight.bits,
        mode=weight.mode,
    )
    return found if weight.factor == 1 else found * weight.factor
