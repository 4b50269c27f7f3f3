"""Weights in float32, in panels of as many columns as a tile of the kernels' products has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.formats.base import PackedWeight
from embedsvc.inference.ops.native.library import Kernels


class Float32Panels:
    """See `LinearFormat`. It takes every weight; quantised ones are expanded."""

    operation = "linear"

    def takes(self, weight: NDArray[Any] | Quantized, kernels: Kernels) -> bool:
        return True

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        weight = expand(weight)
        outputs = len(weight)
        (panels,) = float32_panels(weight[None], kernels)
        arrays = {"weight": panels}
        if bias is not None:
            arrays["bias"] = np.zeros(len(panels) * kernels.panel, dtype=np.float32)
            arrays["bias"][:outputs] = bias
        return PackedWeight(self.operation, arrays, outputs)


def float32_panels(weights: NDArray[Any], kernels: Kernels) -> Floats:
    """Weights (n, out, in) as (n, panels, in, columns of a panel), 0 beyond the last column."""
    count, outputs, inputs = weights.shape
    width = kernels.panel
    panels = _aligned(count, -(-outputs // width), inputs, width)
    for weight, own_panels in zip(weights, panels, strict=True):
        for number, panel in enumerate(own_panels):
            columns = weight[number * width : (number + 1) * width]
            panel[:, : len(columns)] = columns.T
    return panels


def _aligned(*shape: int) -> Floats:
    """Zeros that begin at a multiple of 64 bytes, so that no load of a register crosses a line."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, dtype=np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count].reshape(shape)
