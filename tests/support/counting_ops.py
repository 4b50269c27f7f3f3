"""Operations in C that count the bytes of their weights."""

from typing import Any

from embedsvc.inference.ops.base import Linear
from embedsvc.inference.ops.native import NativeOps


class CountingOps(NativeOps):
    """It counts the bytes that weights take."""

    counted = 0

    def linear_layer(self, weight: Any, bias: Any) -> Linear:
        layer = super().linear_layer(weight, bias)
        self.counted += sum(array.nbytes for array in layer.weight.arrays.values())
        return layer

    def table(self, value: Any) -> Any:
        table = super().table(value)
        self.counted += table.nbytes
        return table
