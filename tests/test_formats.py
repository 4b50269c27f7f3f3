"""Formats of the kernels' weights: how they lie, and that each layer has the one that suits it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.native import NativeOps, formats
from embedsvc.inference.ops.native.formats.base import PackedWeight
from embedsvc.inference.ops.native.formats.float32 import Float32Panels, float32_panels
from embedsvc.inference.ops.native.library import Kernels

KERNELS = Kernels(number=0, name="of four columns", panel=4)


def test_a_panel_has_some_columns_row_by_row_and_zeros_behind_the_last() -> None:
    weight = np.arange(10, dtype=np.float32).reshape(5, 2)  # (out, in)
    (panels,) = float32_panels(weight[None], KERNELS)
    assert panels.tolist() == [
        [[0, 2, 4, 6], [1, 3, 5, 7]],
        [[8, 0, 0, 0], [9, 0, 0, 0]],
    ]
    assert panels.ctypes.data % 64 == 0


def test_a_bias_is_padded_to_whole_panels() -> None:
    weight, bias = np.ones((5, 2), np.float32), np.arange(1.0, 6.0)
    packed = formats.pack(weight, bias, KERNELS)
    assert packed.arrays["bias"].tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    assert (packed.operation, packed.outputs) == ("linear", 5)
    assert set(formats.pack(weight, None, KERNELS).arrays) == {"weight"}


class Halved:
    """A format for wide layers alone, that loses half of every weight: so it can be told."""

    operation = "linear"

    def takes(self, weight: NDArray[Any] | Quantized, kernels: Kernels) -> bool:
        return len(weight.packed if isinstance(weight, Quantized) else weight) > 3

    def pack(
        self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None, kernels: Kernels
    ) -> PackedWeight:
        assert not isinstance(weight, Quantized)
        return Float32Panels().pack(weight / 2, bias, kernels)


def test_each_layer_has_the_first_format_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (Halved(), *formats.FORMATS))
    ops, table = NativeOps(1), np.eye(3, dtype=np.float32)
    narrow = ops.linear_layer(np.ones((3, 3), np.float32), None)
    wide = ops.linear_layer(np.ones((4, 3), np.float32), np.ones(4))

    def function(ops: Any, batch: Batch) -> Any:
        return ops.linear(ops.linear(ops.embedding(table, batch.ids), narrow), wide)

    found = ops.compiled(function)(ops.batch([np.array([0, 2], np.int32)]))
    assert found.tolist() == [[2.5] * 4] * 2
