"""Weights that stay quantised on the kernels in C: how they lie, and that they compute as they
would in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.quantization import Packing
from embedsvc.checkpoints.quantized import Quantized, pack, quantize
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.formats.quantized import QuantizedPanels, QuantizedTable
from embedsvc.inference.ops.native.library import Kernels
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import make_plan
from tests.support.counting_ops import CountingOps
from tests.support.passes import through
from tests.support.quantized_cases import quantized_case

KERNELS = {kernels.name: kernels for kernels in reversed(library.load().kernels)}
every_kernels = pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
Floats = NDArray[np.float32]


@pytest.mark.parametrize(("bits", "held"), [(2, 4), (3, 4), (4, 4), (5, 8), (6, 8), (8, 8)])
def test_a_panel_has_words_of_codes_and_two_numbers_of_each_group(bits: int, held: int) -> None:
    codes = (np.arange(3 * 64).reshape(3, 64) % 2**bits).astype(np.uint8)
    scales, biases = np.array([[1, 2], [3, 4], [5, 6.0]], "f"), np.array([[7, 8]] * 3, "f")
    quantized = Quantized(pack(codes, bits), scales, biases, 32, bits)
    packed = QuantizedPanels().pack(quantized, np.ones(3), Kernels(0, "of two columns", 2))
    words, pairs = packed.arrays["words"].view(np.uint32), packed.arrays["scales"]
    assert (packed.operation, packed.outputs) == ("linear_quantized", 3)
    assert packed.numbers == {"bits": held, "group": 32}
    of_word = 32 // held
    assert words.shape == (2, 64 // of_word, 2)
    for panel, word, column in ((0, 0, 1), (0, 5, 0), (1, 7, 0)):
        found = [int(words[panel, word, column]) >> held * n & 2**held - 1 for n in range(of_word)]
        some = codes[2 * panel + column, word * of_word : (word + 1) * of_word]
        assert found == some.tolist()
    assert pairs[0].tolist() == [[1, 3], [7, 7], [2, 4], [8, 8]]
    assert pairs[1].tolist() == [[5, 0], [7, 0], [6, 0], [8, 0]]
    assert packed.arrays["bias"].tolist() == [1, 1, 1, 0]


@every_kernels
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (3, 64), (8, 64), (6, 32)])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 128, 50), (17, 384, 96), (130, 256, 7)]
)
def test_a_layer_computes_as_it_would_expanded(
    kernels: Kernels,
    bits: int,
    group: int,
    rows: int,
    inputs: int,
    outputs: int,
    random: np.random.Generator,
) -> None:
    x, residual = (random.normal(size=(rows, n)).astype("f") for n in (inputs, outputs))
    bias = random.normal(size=outputs).astype("f")
    weight = quantize(random.normal(size=(outputs, inputs)).astype("f"), group, bits)
    ops = NativeOps(2, kernels)
    layer = ops.linear_layer(weight, bias)
    assert layer.weight.operation == "linear_quantized"

    def run(ops: Any, batch: Batch) -> Any:
        more = ops.embedding(residual, batch.ids)
        return ops.silu(ops.add(ops.linear(ops.embedding(x, batch.ids), layer), more))

    traced = ops.trace(run)
    assert len(traced.tape) == 3  # the sum and the activation are no steps of their own
    found = ops.program(traced).run(ops.batch([np.arange(rows, dtype=np.int32)]))
    product = x.astype(np.float64) @ weight.expanded().T.astype(np.float64) + bias + residual
    expected = product / (1 + np.exp(-product))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(product).max()


@every_kernels
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_is_the_same_whatever_is_beside_it(
    kernels: Kernels, bits: int, random: np.random.Generator
) -> None:
    x = random.normal(size=(150, 192)).astype("f")
    ops = NativeOps(2, kernels)
    weight = quantize(random.normal(size=(60, 192)).astype("f"), 64, bits)
    layer = ops.linear_layer(weight, random.normal(size=60).astype("f"))
    together = through(ops, x, layer)
    for first, rows in ((0, 1), (5, 3), (40, 16), (60, 41)):
        alone = through(ops, x[first : first + rows], layer)
        assert np.array_equal(alone, together[first : first + rows])


@every_kernels
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_shows_where_it_is(
    kernels: Kernels, odd: float, random: np.random.Generator
) -> None:
    x = random.normal(size=(20, 128)).astype("f")
    weight = quantize(random.normal(size=(40, 128)).astype("f"), 64, 4)
    x[13, 100] = weight.scales[5, 1] = odd
    ops = NativeOps(1, kernels)
    found = through(ops, x, ops.linear_layer(weight, None))
    finite = np.ones_like(found, bool)
    finite[13] = finite[:, 5] = False
    assert np.array_equal(np.isfinite(found), finite)


@every_kernels
@pytest.mark.parametrize("dtype", NativeOps.dtypes)
@pytest.mark.parametrize(("bits", "group"), [(4, 64), (5, 32), (8, 128)])
def test_rows_of_a_table_are_expanded_when_they_are_looked_up(
    kernels: Kernels, dtype: Dtype, bits: int, group: int, random: np.random.Generator
) -> None:
    values = quantize(random.normal(size=(50, 256)).astype("f"), group, bits)
    ops = NativeOps(1, kernels, dtype)
    table, batch = ops.table(values), ops.batch([np.array([3, 49, 0], np.int32)])
    assert isinstance(table, QuantizedTable)
    expected = values.expanded()[[3, 49, 0]]
    found = ops.compiled(lambda ops, batch: ops.embedding(table, batch.ids))(batch)
    assert np.abs(found - expected).max() <= 1e-6
    assert np.array_equal(ops.embedding(table, batch.ids), expected)
    assert table.nbytes == 50 * 256 * (4 if bits == 4 else 8) / 8 + 50 * 256 / group * 8


@pytest.mark.parametrize("packing", [Packing("affine", 4, 64), Packing("mxfp4", 4, 32)])
@pytest.mark.parametrize("dtype", NativeOps.dtypes)
def test_other_modes_and_layers_in_lower_precisions_are_expanded(
    packing: Packing, dtype: Dtype, random: np.random.Generator
) -> None:
    values = random.normal(size=(64, 128)).astype("f")
    weight = quantize(values, packing.group_size, packing.bits, packing.mode)
    ops, affine = NativeOps(1, dtype=dtype), packing.mode == "affine"
    layer = ops.linear_layer(weight, None).weight
    stays = affine and dtype == "float32"
    lower = {"bfloat16": "linear_bfloat16", "int8": "linear_int8", "float32": "linear"}
    assert layer.operation == ("linear_quantized" if stays else lower[dtype])
    assert isinstance(ops.table(weight), QuantizedTable) == affine


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "modernbert", "bert"])
@pytest.mark.parametrize(("bits", "group"), [(4, 64), (3, 32), (8, 64)])
def test_the_plan_of_a_model_knows_what_its_weights_take(
    name: str, bits: int, group: int, tmp_path: Path
) -> None:
    quantized_case(name, Packing("affine", bits, group)).write(tmp_path)
    checkpoint, ops = open_checkpoint(Card(id="x", path=tmp_path)), CountingOps(1)
    sizes = {
        backend: make_plan(checkpoint, "float32", backend=backend).size
        for backend in ("native", "numpy")
    }
    load_encoder(ops, checkpoint)
    # Panels of these narrow layers are wider than they are.
    assert 0.7 * ops.counted <= sizes["native"] <= 1.3 * ops.counted
    assert sizes["native"] < 0.8 * sizes["numpy"]


def test_vectors_are_those_of_numpy_alone_and_together(tmp_path: Path) -> None:
    case = quantized_case("qwen3", Packing("affine", 4, 64))
    checkpoint = open_checkpoint(Card(id="x", path=case.write(tmp_path)))
    kernels, plain = load_encoder(NativeOps(2), checkpoint), load_encoder(NumpyOps(), checkpoint)
    texts = case.texts()
    together = kernels.encode(texts)
    assert np.abs(together - plain.encode(texts)).max() <= 1e-5
    alone = np.concatenate([kernels.encode([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-6
