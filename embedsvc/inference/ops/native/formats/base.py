"""What a format of weights is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from embedsvc.checkpoints.quantized import Quantized
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
