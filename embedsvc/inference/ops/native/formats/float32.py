"""Weights in float32, in panels of as many columns as a tile of the kernels' products has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.formats.base import (
    PackedWeight,
    aligned,
    bias_panels,
    fill_panels,
)
from embedsvc.inference.ops.native.library import Kernels


class Float32Panels:
    """See `LinearFormat`. It takes every weight; quantised ones are expanded."""

    operation = "linear"

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
        return True

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        weight = expand(weight)
        (packed,) = float32_panels(weight[None], kernels)
        arrays = {"weight": packed, **bias_panels(bias, kernels)}
        return PackedWeight(self.operation, arrays, len(weight))


def float32_panels(weights: NDArray[Any], kernels: Kernels) -> Floats:
    """Weights (n, out, in) as (n, panels, in, columns of a panel), 0 beyond the last column."""
    count, outputs, inputs = weights.shape
    width = kernels.panel
    packed = aligned(np.float32, count, -(-outputs // width), inputs, width)
    for weight, own_panels in zip(weights, packed, strict=True):
        fill_panels(own_panels, weight)
    return packed
