"""Weights in bfloat16, the upper half of a float32: half the memory, and products in half the time
where the processor has instructions for them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.formats.base import (
    NARROW,
    WHOLE_WORDS,
    PackedWeight,
    bias_panels,
    panels,
    some_rows,
    words,
)
from embedsvc.inference.ops.native.library import Kernels

BLOCK = 2 * WHOLE_WORDS
"""The inputs of a layer are padded to a multiple of so many."""


class BFloat16Panels:
    """See `LinearFormat`. Two inputs of a column are one word of its panel."""

    operation = "linear_bfloat16"

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
        return dtype == "bfloat16" and min(weight.shape) >= NARROW

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        weight = expand(weight)
        outputs, inputs = weight.shape
        halves = np.zeros((outputs, -(-inputs // BLOCK) * BLOCK), np.uint16)
        halves[:, :inputs] = to_bfloat16(weight)
        arrays = {"words": panels(words(halves), kernels), **bias_panels(bias, kernels)}
        return PackedWeight(self.operation, arrays, outputs)


def to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16; of two as near, those of the even one. NaN stays.

    >>> [hex(bits) for bits in to_bfloat16(np.array([[1.0, -2.5, 1.00390625, np.nan]]))[0]]
    ['0x3f80', '0xc020', '0x3f80', '0x7fc0']
    """
    rounded = np.empty(values.shape, np.uint16)
    for some in some_rows(values):
        floats = np.ascontiguousarray(values[some], dtype=np.float32)
        bits = floats.view(np.uint32)
        nearest = bits >> 16
        nearest &= 1
        nearest += 0x7FFF
        nearest += bits
        nearest >>= 16
        nearest[np.isnan(floats)] = 0x7FC0
        rounded[some] = nearest
    return rounded


def from_bfloat16(bits: NDArray[np.uint16]) -> Floats:
    """The numbers in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
