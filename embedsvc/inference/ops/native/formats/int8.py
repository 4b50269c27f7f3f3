"""Weights in int8: a quarter of the memory. Groups of neighbours have a scale in common, so that
one large weight does not round away those of a whole column."""

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

GROUP = 4 * WHOLE_WORDS
"""The inputs of a group, of which the last is padded (`GROUP_WORDS` of dots.h, four to a word)."""


class Int8Panels:
    """See `LinearFormat`. Four inputs of a column are one word of its panel."""

    operation = "linear_int8"

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
        return dtype == "int8" and min(weight.shape) >= NARROW

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        codes, scales = to_int8(expand(weight))
        arrays = {
            "words": panels(words(codes), kernels),
            "scales": panels(scales, kernels),
            **bias_panels(bias, kernels),
        }
        return PackedWeight(self.operation, arrays, len(codes))


def to_int8(weight: NDArray[Any]) -> tuple[NDArray[np.uint8], Floats]:
    """Codes (out, groups * GROUP) and scales (out, groups): a weight is (code - 128) * scale.

    >>> codes, scales = to_int8(np.array([[127.0, -3.0]]))
    >>> codes[0, :3].tolist(), scales.tolist()
    ([255, 125, 128], [[1.0]])
    """
    outputs, inputs = weight.shape
    count = -(-inputs // GROUP)
    codes = np.empty((outputs, count * GROUP), np.uint8)
    scales = np.empty((outputs, count), np.float32)
    for some in some_rows(weight):
        groups = np.zeros((some.stop - some.start, count, GROUP), np.float32)
        groups.reshape(len(groups), -1)[:, :inputs] = weight[some]
        tops = np.abs(groups).max(axis=-1)
        groups[~np.isfinite(tops)] = 0  # a weight that is not finite shows in its scale
        groups *= np.divide(127, tops, out=np.zeros_like(tops), where=tops > 1e-30)[..., None]
        np.rint(groups, out=groups)
        groups += 128
        codes[some] = groups.reshape(len(groups), -1)
        scales[some] = tops / np.float32(127)
    return codes, scales
