"""What a format of weights is, and what formats share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.library import Kernels

WHOLE_WORDS = 16
"""A row of weights has a multiple of so many words, as in dots.h."""
NUMBERS_AT_ONCE = 1 << 15
"""A matrix is rounded by about so many numbers: there are several copies of them meanwhile, which
stay in the cache."""
NARROW = 32
"""A layer with fewer inputs or outputs stays in float32: a classifier, or what chooses experts."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A linear layer's weight and bias as a kernel reads them."""

    operation: str
    """The kernel's, in operations.def."""
    arrays: Mapping[str, NDArray[Any]]
    """By the fields of `Instruction` that point to them."""
    outputs: int
    numbers: Mapping[str, int] = field(default_factory=dict[str, int])
    """Its other fields of `Instruction`."""


class LinearFormat(Protocol):
    """How the weight of a linear layer lies in memory."""

    @property
    def operation(self) -> str:
        """The kernel that multiplies by such weights, as operations.def calls it.

        It adds a bias and a residual and applies an activation, as `linear` does.
        """
        ...

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
        """Whether such a weight (out, in) is to be held in this format in passes of that dtype."""
        ...

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        """The weight (out, in) and bias (out,) in this format."""
        ...


def some_rows(matrix: NDArray[Any]) -> Iterator[slice]:
    """The rows of a matrix, cut into runs of about `NUMBERS_AT_ONCE` numbers.

    >>> list(some_rows(np.empty((3, 20000))))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    step = max(1, NUMBERS_AT_ONCE // max(1, matrix.shape[1]))
    for first in range(0, len(matrix), step):
        yield slice(first, min(first + step, len(matrix)))


def words(numbers: NDArray[Any]) -> NDArray[np.int32]:
    """Numbers (out, n) of 2 bytes or of 1 as words (out, n / 2 or n / 4), as dots.h has them.

    Of each 16 neighbouring words, the first has numbers 0, 16, and so on.

    >>> [hex(word) for word in words(np.arange(64, dtype=np.uint8)[None])[0, :2]]
    ['0x30201000', '0x31211101']
    """
    count = 4 // numbers.itemsize
    blocks = numbers.reshape(len(numbers), -1, count, WHOLE_WORDS).swapaxes(2, 3)
    return np.ascontiguousarray(blocks).reshape(len(numbers), -1).view(np.int32)


def panels(columns: NDArray[Any], kernels: Kernels) -> NDArray[Any]:
    """Columns (out, n) as (panels, n, columns of a panel), 0 beyond the last column."""
    width = kernels.panel
    whole = aligned(columns.dtype, -(-len(columns) // width), columns.shape[1], width)
    fill_panels(whole, columns)
    return whole


def fill_panels(panels: NDArray[Any], columns: NDArray[Any]) -> None:
    """Write columns (out, n) into panels (panels, n, columns of a panel)."""
    width = panels.shape[2]
    for number, panel in enumerate(panels):
        some = columns[number * width : (number + 1) * width]
        panel[:, : len(some)] = some.T


def bias_panels(bias: NDArray[Any] | None, kernels: Kernels) -> dict[str, Floats]:
    """The bias (out,), if there is one, padded to whole panels."""
    if bias is None:
        return {}
    padded = np.zeros(-(-len(bias) // kernels.panel) * kernels.panel, dtype=np.float32)
    padded[: len(bias)] = bias
    return {"bias": padded}


def aligned(dtype: Any, *shape: int) -> NDArray[Any]:
    """Zeros of 4 bytes that begin at a multiple of 64 bytes, so that no load of a register crosses
    a line of the cache."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, dtype)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count].reshape(shape)
