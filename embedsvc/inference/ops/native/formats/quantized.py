"""Weights that stay as they were quantised for MLX: in 4 bits they take a sixth of the memory of
float32, and a pass over a few tokens, which mostly waits for weights, takes less time."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized, pack, unpack
from embedsvc.inference.ops.base import Floats
from embedsvc.inference.ops.native.formats.base import PackedWeight, bias_panels, panels
from embedsvc.inference.ops.native.library import Kernels

BITS = (4, 8)
"""Of the codes that kernels read: codes of other bits are kept in the next of these."""


class QuantizedPanels:
    """See `LinearFormat`. It takes what is quantised in the mode `affine`, in passes in float32: in
    lower precisions products take less time than expanding does."""

    operation = "linear_quantized"

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
        return isinstance(weight, Quantized) and stays_quantized(weight) and dtype == "float32"

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        weight = cast(Quantized, weight)
        words, scales, bits = in_words(weight)
        arrays = {
            "words": panels(words, kernels),
            "scales": panels(scales, kernels),
            **bias_panels(bias, kernels),
        }
        numbers = {"bits": bits, "group": weight.group_size}
        return PackedWeight(self.operation, arrays, len(words), numbers)


class QuantizedTable:
    """A table of embeddings (rows, columns), each row of which is expanded when it is looked up."""

    def __init__(self, table: Quantized) -> None:
        """The table is one that `stays_quantized`."""
        words, scales, bits = in_words(table)
        self.shape = table.shape
        self.arrays: dict[str, NDArray[Any]] = {"words": words, "scales": scales}
        """By the fields of `Instruction` that point to them."""
        self.numbers = {"rows": len(words), "bits": bits, "group": table.group_size}
        """Its other fields of `Instruction`."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(array.nbytes for array in self.arrays.values())

    def take(self, indices: NDArray[np.integer[Any]]) -> Floats:
        """Rows (N, columns) in float32."""
        words, scales = (self.arrays[name].take(indices, axis=0) for name in ("words", "scales"))
        pairs = scales.reshape(len(indices), -1, 2)
        return Quantized(
            packed=words.view(np.uint32),
            scales=pairs[..., 0],
            biases=pairs[..., 1],
            group_size=self.numbers["group"],
            bits=self.numbers["bits"],
        ).expanded()


def stays_quantized(matrix: Quantized) -> bool:
    """Whether there are kernels for it."""
    return matrix.mode == "affine"


def in_words(matrix: Quantized) -> tuple[NDArray[np.int32], Floats, int]:
    """Words of codes (out, in * bits / 32), a scale and an offset for each group (out, groups * 2),
    and the bits of a code."""
    bits = next(each for each in BITS if each >= matrix.bits)
    words = np.asarray(matrix.packed)
    if bits != matrix.bits:
        words = pack(unpack(words, matrix.bits), bits)
    pairs = np.stack([matrix.scales, matrix.biases], axis=-1).astype(np.float32)
    return (
        np.require(words, np.uint32, ["C", "A"]).view(np.int32),
        pairs.reshape(len(words), -1),
        bits,
    )
