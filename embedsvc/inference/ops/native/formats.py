"""Formats of weights: how those of a linear layer lie in memory, and which kernel reads them.

A format is chosen for each layer when it is loaded. To add one, write a class here, put it into
`FORMATS`, and its kernel into operations.def.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.library import Kernels


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A linear layer's weight and bias as a kernel reads them."""

    operation: str
    """The kernel's, in operations.def."""
    arrays: Mapping[str, NDArray[Any]]
    """By the fields of `Instruction` that point to them."""
    outputs: int


class LinearFormat(Protocol):
    """How the weight of a linear layer lies in memory."""

    @property
    def operation(self) -> str:
        """The kernel that multiplies by such weights, as operations.def calls it.

        It adds a bias and a residual and applies an activation, as `linear` does.
        """
        ...

    def takes(self, weight: NDArray[Any] | Quantized, kernels: Kernels) -> bool:
        """Whether such a weight (out, in) is to be held in this format for these kernels."""
        ...

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        """The weight (out, in) and bias (out,) in this format."""
        ...


class Float32Panels:
    """float32, some columns after the other, as wide as the kernels' tiles."""

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


FORMATS: tuple[LinearFormat, ...] = (Float32Panels(),)
"""The first that takes a weight is used for it."""
PRODUCTS = frozenset(format_.operation for format_ in FORMATS)
"""The operations that linear layers become."""


def pack(
    weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
) -> PackedWeight:
    """A linear layer's weight (out, in) and bias (out,) in the format that suits it."""
    format_ = next(format_ for format_ in FORMATS if format_.takes(weight, kernels))
    return format_.pack(weight, bias, kernels)


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
