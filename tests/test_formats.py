"""Formats of the kernels' weights: how they lie, and that each layer has the one that suits it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized, quantize
from embedsvc.inference.ops.base import Batch, Linear
from embedsvc.inference.ops.native import NativeOps, formats, library
from embedsvc.inference.ops.native.formats.base import NUMBERS_AT_ONCE, LinearFormat, PackedWeight
from embedsvc.inference.ops.native.formats.bfloat16 import BFloat16Panels, to_bfloat16
from embedsvc.inference.ops.native.formats.float32 import Float32Panels, float32_panels
from embedsvc.inference.ops.native.formats.int8 import Int8Panels, to_int8
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


def test_two_bfloat16_are_a_word_and_zeros_stand_behind_the_last_input() -> None:
    weight = np.zeros((2, 33), np.float32)
    weight[0, [0, 16, 1, 32]], weight[1, [0, 16, 17]] = (
        [1, -2, 3, 4],
        [0.5, 1 + 2**-8, 1 + 3 * 2**-8],
    )
    packed = BFloat16Panels().pack(weight, None, KERNELS)
    (panel,) = packed.arrays["words"]
    assert panel.shape == (32, 4)
    assert [[*map(hex, column)] for column in panel.view(np.uint32)[[0, 1, 16, 17]].T.tolist()] == [
        ["0xc0003f80", "0x4040", "0x4080", "0x0"],
        ["0x3f803f00", "0x3f820000", "0x0", "0x0"],  # ties go to the even one
        *[["0x0"] * 4] * 2,
    ]
    assert (packed.operation, packed.outputs) == ("linear_bfloat16", 2)


def test_four_int8_are_a_word_and_groups_have_scales() -> None:
    weight = np.zeros((2, 70), np.float32)
    weight[0, :64:16], weight[1, 64:] = [127, -127, 1.4, 0], -2
    packed = Int8Panels().pack(weight, np.ones(2), KERNELS)
    (panel,), (scales,) = packed.arrays["words"], packed.arrays["scales"]
    codes = np.ascontiguousarray(panel.T).view(np.uint8)[:2].astype(int) - 128  # (columns, inputs)
    assert codes.shape == (2, 128)
    assert codes[0, :4].tolist() == [127, -127, 1, 0]
    assert codes[1, 64::4].tolist() == [-127] * 6 + [0] * 10
    assert scales.T.tolist() == [[1, 0], [0, np.float32(2 / 127)], [0, 0], [0, 0]]
    assert (packed.operation, packed.outputs) == ("linear_int8", 2)


def test_a_large_matrix_is_rounded_like_its_rows(random: np.random.Generator) -> None:
    at_once = NUMBERS_AT_ONCE // 65
    weight = random.normal(size=(2 * at_once + 3, 65)).astype(np.float32)
    halves, (codes, scales) = to_bfloat16(weight), to_int8(weight)
    for row in (0, at_once - 1, at_once, len(weight) - 1):
        alone = weight[row : row + 1]
        assert np.array_equal(to_bfloat16(alone)[0], halves[row])
        assert np.array_equal(to_int8(alone)[0][0], codes[row])
        assert np.array_equal(to_int8(alone)[1][0], scales[row])


@pytest.mark.parametrize("format_", [BFloat16Panels(), Int8Panels()])
def test_a_weight_that_is_not_finite_shows(format_: LinearFormat) -> None:
    for odd in (np.nan, np.inf):
        weight = np.ones((32, 64), np.float32)
        weight[3, 5] = odd
        ops = NativeOps(1)
        layer = Linear(format_.pack(weight, None, library.load().kernels[0]), None)
        found = ops.linear(np.ones((2, 64), np.float32), layer)
        assert not np.isfinite(found[:, 3]).any()
        assert np.isfinite(np.delete(found, 3, axis=1)).all()


@pytest.mark.parametrize(
    ("format_", "dtype"), [(BFloat16Panels(), "bfloat16"), (Int8Panels(), "int8")]
)
def test_what_is_quantised_already_is_expanded_and_rounded_anew(
    format_: LinearFormat, dtype: Dtype, random: np.random.Generator
) -> None:
    quantized = quantize(random.normal(size=(40, 128)).astype(np.float32), 64, 4)
    assert format_.takes(quantized, dtype)
    assert not format_.takes(quantized, "float32")
    found, expected = (
        format_.pack(weight, None, KERNELS).arrays for weight in (quantized, quantized.expanded())
    )
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


class Halved:
    """A format for wide layers alone, that loses half of every weight: so it can be told."""

    operation = "linear"

    def takes(self, weight: NDArray[Any] | Quantized, dtype: Dtype) -> bool:
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
