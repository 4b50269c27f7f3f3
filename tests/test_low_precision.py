"""Products in bfloat16 and int8, on every way to multiply that this processor has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.diagnosis.computing import precisions
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Attention, Batch, columns
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.library import Kernels
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import make_plan
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.counting_ops import CountingOps
from tests.support.passes import through
from tests.support.quantized_cases import wide_case
from tests.support.tiny import CASES

KERNELS = library.load().kernels
NAMES = [" ".join(filter(None, kernels[1:2] + kernels[3:])) for kernels in KERNELS]
DTYPES: tuple[Dtype, ...] = ("bfloat16", "int8")
REFERENCE = Path(__file__).parent / "reference"
RECORDED = np.load(REFERENCE / "all-MiniLM-L6-v2.npy", allow_pickle=False)
Floats = NDArray[np.float32]
every_kernels = pytest.mark.parametrize("kernels", KERNELS, ids=NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def halves(values: Floats) -> Floats:
    """The nearest bfloat16, by way of what is left of a float's 24 bits."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)


def quarters(values: Floats) -> Floats:
    """The nearest of 255 even steps, in groups of 64 columns, the last one shorter."""
    rounded = np.empty_like(values)
    for first in range(0, values.shape[1], 64):
        group = values[:, first : first + 64]
        top = np.abs(group).max(axis=1, keepdims=True)
        per = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
        rounded[:, first : first + 64] = np.rint(group * per) * top / 127
    return rounded


ROUND: dict[Dtype, Callable[[Floats], Floats]] = {"bfloat16": halves, "int8": quarters}


@every_kernels
@every_dtype
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 130])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 32), (33, 50), (64, 48), (100, 145)])
def test_a_product_is_that_of_rounded_rows_and_weights(
    kernels: Kernels,
    dtype: Dtype,
    rows: int,
    inputs: int,
    outputs: int,
    random: np.random.Generator,
) -> None:
    x = random.normal(size=(rows, inputs)).astype(np.float32) * 3
    weight = random.normal(size=(outputs, inputs)).astype(np.float32)
    bias = random.normal(size=outputs).astype(np.float32)
    x[0, : inputs // 2], weight[1] = 0, 0
    ops = NativeOps(2, kernels, dtype)
    found = through(ops, x, ops.linear_layer(weight, bias))
    expected = ROUND[dtype](x).astype(np.float64) @ ROUND[dtype](weight).T + bias
    assert np.abs(found - expected).max() <= 2e-6 * inputs
    assert np.abs(found - (x @ weight.T + bias)).max() > 1e-3  # it is rounded, and by this alone


@every_kernels
@every_dtype
def test_what_follows_a_product_is_folded_into_it(
    kernels: Kernels, dtype: Dtype, random: np.random.Generator
) -> None:
    x, weight, residual, bias = (
        random.normal(size=shape).astype(np.float32) for shape in ((21, 70), (50, 70), (21, 50), 50)
    )
    ops = NativeOps(1, kernels, dtype)
    layer = ops.linear_layer(weight, bias)

    def run(ops: Any, batch: Batch) -> Any:
        rows, more = ops.embedding(x, batch.ids), ops.embedding(residual, batch.ids)
        active = ops.gelu(ops.linear(rows, layer))
        return ops.add(active, ops.add(ops.linear(rows, layer), more))

    traced = ops.trace(run)
    found = ops.program(traced).run(ops.batch([np.arange(21, dtype=np.int32)]))
    plain = through(ops, x, layer)
    assert np.abs(found - (NumpyOps().gelu(plain.copy()) + plain + residual)).max() <= 1e-5
    assert len(traced.tape) == 5  # neither gelu nor the first sum is a step of its own


@every_kernels
@every_dtype
def test_a_row_is_the_same_whatever_is_beside_it(
    kernels: Kernels, dtype: Dtype, random: np.random.Generator
) -> None:
    x = random.normal(size=(150, 96)).astype(np.float32)
    ops = NativeOps(2, kernels, dtype)
    layer = ops.linear_layer(random.normal(size=(60, 96)), None)
    together = through(ops, x, layer)
    for first, rows in ((0, 1), (5, 3), (40, 16), (60, 41)):
        alone = through(ops, x[first : first + rows], layer)
        assert np.array_equal(alone, together[first : first + rows])


@every_kernels
@every_dtype
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_its_row_alone(
    kernels: Kernels, dtype: Dtype, odd: float, random: np.random.Generator
) -> None:
    x = random.normal(size=(20, 64)).astype(np.float32)
    x[13, 40] = odd
    ops = NativeOps(1, kernels, dtype)
    found = through(ops, x, ops.linear_layer(random.normal(size=(40, 64)), None))
    assert not np.isfinite(found[13]).any()
    assert np.isfinite(np.delete(found, 13, axis=0)).all()


@every_kernels
@every_dtype
@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-42])
def test_a_row_may_be_of_any_size(
    kernels: Kernels, dtype: Dtype, size: float, random: np.random.Generator
) -> None:
    x = (random.normal(size=(3, 64)) * size).astype(np.float32)
    ops = NativeOps(1, kernels, dtype)
    found = through(ops, x, ops.linear_layer(random.normal(size=(40, 64)), None))
    assert np.isfinite(found).all()
    assert 0 <= np.abs(found).max() <= 100 * size


@every_kernels
@pytest.mark.parametrize("lengths", [[3], [64, 64], [20, 65, 130], [300]])
@pytest.mark.parametrize("size", [4, 32, 50])
@pytest.mark.parametrize(
    "spec",
    [
        Attention(4, 2, scale=0.3),
        Attention(4, 4, scale=0.2, causal=True),
        Attention(4, 1, scale=0.2, window=3, causal=True),
        Attention(4, 4, scale=0.2, window=40),
        Attention(
            4, 4, scale=0.2, bias=np.linspace(-3, 3, 4 * 599, dtype=np.float32).reshape(4, -1)
        ),
    ],
    ids=["grouped", "causal", "causal window", "window", "bias"],
)
def test_attention_is_that_of_rounded_queries_keys_and_values(
    kernels: Kernels,
    spec: Attention,
    size: int,
    lengths: list[int],
    random: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NativeOps, "_attention", lambda _: "attention_bfloat16")
    widths = [4 * size, spec.kv_heads * size, spec.kv_heads * size]
    qkv = halves(random.normal(size=(sum(lengths), sum(widths))).astype(np.float32))

    def run(ops: Any, batch: Batch) -> Any:
        q, k, v = columns(ops.embedding(qkv, batch.ids), *widths)
        return ops.attention(q, k, v, spec, batch.layout)

    rows = np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])
    ops, exact = NativeOps(2, kernels, "bfloat16"), NumpyOps()
    found, expected = ops.compiled(run)(ops.batch(rows)), exact.compiled(run)(exact.batch(rows))
    off = np.abs(found - expected).max()
    assert off <= 2**-8 * np.abs(qkv).max()  # weights are rounded too
    assert max(lengths) < 64 or off > 1e-6


@every_kernels
@every_dtype
@pytest.mark.parametrize("width", [2, 30, 384, 7])
def test_tables_are_in_bfloat16_with_columns_in_pairs(
    kernels: Kernels, dtype: Dtype, width: int, random: np.random.Generator
) -> None:
    ops, values = NativeOps(1, kernels, dtype), random.normal(size=(50, width)).astype(np.float32)
    table, batch = ops.table(values), ops.batch([np.array([3, 49, 0], np.int32)])
    found = ops.compiled(lambda ops, batch: ops.embedding(table, batch.ids))(batch)
    expected = (halves(values) if width % 2 == 0 else values)[[3, 49, 0]]
    assert np.array_equal(found, expected)
    assert np.array_equal(ops.embedding(table, batch.ids), expected)
    assert table.nbytes == values.nbytes / (2 if width % 2 == 0 else 1)


def test_what_multiplies_is_said_and_what_is_not_trusted() -> None:
    kernels = Kernels(0, "AVX-512", 48, "AVX512-BF16", "AVX512-VNNI")
    distrusted = kernels._replace(distrusted="AMX")
    assert "products" not in NativeOps(1, distrusted).device
    assert NativeOps(1, kernels, "int8").device.endswith("int8 products by AVX512-VNNI")
    assert "BF16 (AMX gives other results" in NativeOps(1, distrusted, "bfloat16").device
    assert precisions(kernels).seen.startswith("bfloat16 by AVX512-BF16, int8 by AVX512-VNNI")
    assert precisions(distrusted).seen.endswith("; AMX gives other results: not used")


@every_dtype
def test_narrow_layers_stay_in_float32(dtype: Dtype, random: np.random.Generator) -> None:
    ops, x = NativeOps(1, dtype=dtype), random.normal(size=(5, 40)).astype(np.float32)
    for outputs in (1, 31):
        weight = random.normal(size=(outputs, 40)).astype(np.float32)
        assert np.abs(through(ops, x, ops.linear_layer(weight, None)) - x @ weight.T).max() <= 1e-5


def test_weights_take_half_and_a_quarter_of_the_memory(random: np.random.Generator) -> None:
    weight = random.normal(size=(384, 384)).astype(np.float32)
    sizes = {
        dtype: sum(
            a.nbytes
            for a in NativeOps(1, dtype=dtype).linear_layer(weight, None).weight.arrays.values()
        )
        for dtype in ("float32", *DTYPES)
    }
    assert sizes["bfloat16"] == sizes["float32"] / 2
    assert sizes["int8"] == sizes["float32"] / 4 * (1 + 4 / 64)


@pytest.mark.parametrize("dtype", NativeOps.dtypes)
def test_the_plan_of_a_model_knows_what_its_weights_take(dtype: Dtype, minilm: Checkpoint) -> None:
    ops = CountingOps(1, dtype=dtype)
    plan = make_plan(minilm, dtype, backend="native")
    load_encoder(ops, minilm, plan=plan)
    assert ops.counted <= plan.size <= 1.06 * ops.counted  # there is a pooler, which is not loaded


@every_dtype
def test_the_plan_of_a_model_knows_that_its_experts_stay_in_float32(
    dtype: Dtype, tmp_path: Path
) -> None:
    folder = CASES["nomic_bert-moe"].write(tmp_path)
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    tensors = checkpoint.tensors().entries()
    experts = sum(tensor.nbytes for name, tensor in tensors.items() if ".experts." in name)
    whole, size = (
        make_plan(checkpoint, each, backend="native").size for each in ("float32", dtype)
    )
    per = {"bfloat16": 2, "int8": 1 + 4 / 64}[dtype] / 4
    assert experts > whole / 4
    assert (whole - experts) * per + experts <= size < whole


@pytest.fixture(scope="module")
def token_ids(minilm: Checkpoint) -> list[NDArray[np.int32]]:
    texts = json.loads((REFERENCE / "texts.json").read_text(encoding="utf-8"))
    return Tokenizer("minilm", minilm.folder, minilm.max_tokens).encode(texts)


@pytest.mark.parametrize(
    ("dtype", "mean", "worst"), [("bfloat16", 0.99998, 0.9999), ("int8", 0.999, 0.995)]
)
def test_a_real_model_stays_near_float32_and_is_the_same_alone_and_in_a_batch(
    dtype: Dtype,
    mean: float,
    worst: float,
    minilm: Checkpoint,
    token_ids: list[NDArray[np.int32]],
) -> None:
    encoder = load_encoder(NativeOps(2, dtype=dtype), minilm)
    alone = np.concatenate([encoder.encode([ids]) for ids in token_ids])
    cosines = np.einsum("nd,nd->n", alone.astype(np.float64), RECORDED)
    assert cosines.mean() >= mean
    assert cosines.min() >= worst
    some = token_ids[::7]
    assert np.abs(encoder.encode(some) - alone[::7]).max() <= 1e-5


@every_kernels
@every_dtype
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_one_row_that_is_read_of_each_text_stays_near_float32(
    kernels: Kernels, dtype: Dtype, name: str, tmp_path: Path
) -> None:
    case = wide_case(name)
    checkpoint = open_checkpoint(Card(id=name, path=case.write(tmp_path)))
    encoder, texts = load_encoder(NativeOps(2, kernels, dtype), checkpoint), case.texts()
    assert encoder.heads["vector"].head.reads(encoder.heads["vector"].weights) != "all"
    together = encoder.encode(texts)
    exact = load_encoder(NumpyOps(), checkpoint).encode(texts)
    assert np.einsum("nd,nd->n", together, exact).min() >= 0.998
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5
