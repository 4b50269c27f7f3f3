"""Formats of weights: how those of a linear layer lie in memory, and which kernel reads them.

A format is chosen for each layer when it is loaded. To add one, put a file beside float32.py, a
line into `FORMATS`, and its kernel into operations.def.
"""

from typing import Any

from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.native.formats.base import LinearFormat, PackedWeight
from embedsvc.inference.ops.native.formats.bfloat16 import BFloat16Panels
from embedsvc.inference.ops.native.formats.float32 import Float32Panels
from embedsvc.inference.ops.native.formats.int8 import Int8Panels
from embedsvc.inference.ops.native.formats.quantized import QuantizedPanels
from embedsvc.inference.ops.native.library import Kernels

FORMATS: tuple[LinearFormat, ...] = (
    QuantizedPanels(),
    BFloat16Panels(),
    Int8Panels(),
    Float32Panels(),
)
"""The first that takes a weight is used for it."""
PRODUCTS = frozenset(format_.operation for format_ in FORMATS)
"""The operations that linear layers become."""


def pack(
    weight: NDArray[Any] | Quantized,
    bias: NDArray[Any] | None,
    kernels: Kernels,
    dtype: Dtype = "float32",
) -> PackedWeight:
    """A linear layer's weight (out, in) and bias (out,) in the format that suits it."""
    format_ = next(format_ for format_ in FORMATS if format_.takes(weight, dtype))
    return format_.pack(weight, bias, kernels)
