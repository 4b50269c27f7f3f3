"""Every quantisation of MLX: read as MLX reads it, written as it writes it, computed alike."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.quantization import AFFINE, FLOAT, Packing
from embedsvc.checkpoints.quantized import Quantized, join, pack, quantize, unpack
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_json
from tests.support.quantized_cases import wide_case
from tests.support.tiny import Case
from tests.support.tolerance import within

PACKINGS = (*AFFINE, *FLOAT)
NAMES = [f"{each.mode}-{each.bits}-{each.group_size}" for each in PACKINGS]
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def quantized_by_mlx(
    weight: np.ndarray, packing: Packing, dtype: mx.Dtype = mx.float32
) -> list[mx.array]:
    """The parts that MLX stores: words, scales and, if there are any, biases."""
    mode, bits, group_size = packing
    return [*mx.quantize(mx.array(weight).astype(dtype), group_size, bits, mode)]


def expanded_by_mlx(parts: list[mx.array], packing: Packing) -> np.ndarray:
    """The matrix in float32, its scales as they are stored."""
    mode, bits, group_size = packing
    words, *scales = parts
    if mode == "affine":
        scales = [part.astype(mx.float32) for part in scales]
    options: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    return np.array(mx.dequantize(words, *scales, **options, dtype=mx.float32))


def test_mlx_makes_what_is_listed_and_nothing_else() -> None:
    made: set[Packing] = set()
    for mode in ("affine", "mxfp4", "mxfp8", "nvfp4"):
        for bits in range(1, 17):
            for group_size in (8, 16, 32, 64, 128, 256):
                packing = Packing(mode, bits, group_size)
                try:
                    quantized_by_mlx(np.zeros((2, 256), np.float32), packing)
                except ValueError:
                    continue
                made.add(packing)
    # One bit is left out: its rounding in MLX keeps no more than the largest of a group.
    assert {each for each in made if each.bits > 1} == set(PACKINGS)


@pytest.mark.parametrize("packing", PACKINGS, ids=NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [128, 384, 640])
def test_a_stored_matrix_is_expanded_exactly_as_mlx_does_it(
    packing: Packing, dtype: str, width: int, tmp_path: Path, random: np.random.Generator
) -> None:
    weight = random.normal(size=(6, width)).astype(np.float32)
    weight[1], weight[2], weight[3, : width // 2] = 0, 1.5, 0
    parts = quantized_by_mlx(weight, packing, DTYPES[dtype])
    names = ("a.weight", "a.scales", "a.biases")
    file = str(tmp_path / "model.safetensors")
    mx.save_safetensors(file, dict(zip(names, parts, strict=False)))
    quantized = Tensors("x", tmp_path).take_weight("a.weight", 6, width)
    assert isinstance(quantized, Quantized)
    assert (quantized.mode, quantized.bits, quantized.group_size) == packing
    assert (quantized.biases is None) == (packing.mode != "affine")
    assert np.array_equal(quantized.expanded(), expanded_by_mlx(parts, packing))


@pytest.mark.parametrize("packing", PACKINGS, ids=NAMES)
def test_a_matrix_is_quantised_as_mlx_does_it(
    packing: Packing, random: np.random.Generator
) -> None:
    weight = random.normal(size=(8, 384)).astype(np.float32)
    weight[1], weight[2], weight[3], weight[4] = 0, 1.5, np.abs(weight[3]), weight[4] * 1e-4
    mode, bits, group_size = packing
    ours = quantize(weight, group_size, bits, mode)
    parts = quantized_by_mlx(weight, packing)
    assert np.array_equal(ours.expanded(), expanded_by_mlx(parts, packing))
    if mode == "affine":  # the other modes have two codes for zero, and any scale beside it
        stored = (ours.packed, ours.scales, ours.biases)
        assert all(np.array_equal(x, np.array(y)) for x, y in zip(stored, parts, strict=True))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_lie_across_words(bits: int, random: np.random.Generator) -> None:
    codes = random.integers(0, 2**bits, (5, 96)).astype(np.uint8)
    words = pack(codes, bits)
    assert words.shape == (5, 96 * bits // 32)
    assert np.array_equal(unpack(words, bits), codes)
    row = int.from_bytes(words[4].astype("<u4").tobytes(), "little")
    assert [row >> (n * bits) & (2**bits - 1) for n in range(96)] == codes[4].tolist()


@pytest.mark.parametrize("packing", PACKINGS, ids=NAMES)
def test_products_and_tables_are_those_of_the_expanded_matrix(
    ops: Ops, packing: Packing, random: np.random.Generator
) -> None:
    mode, bits, group_size = packing
    quantized = quantize(random.normal(size=(96, 128)).astype("f"), group_size, bits, mode)
    whole = quantized.expanded()
    x, bias = random.normal(size=(5, 128)).astype("f"), random.normal(size=96).astype("f")
    found = ops.to_numpy(ops.linear(ops.array(x), ops.linear_layer(quantized, bias)))
    assert np.abs(found - (x @ whole.T + bias)).max() < 1e-4
    ids = ops.batch([np.array([0, 95, 7], np.int32)]).ids
    rows = ops.to_numpy(ops.embedding(ops.array(quantized), ids))[:3]
    assert np.abs(rows - whole[[0, 95, 7]]).max() < within(1e-5, ops)
    larger = quantized * np.float32(8)
    rows = ops.to_numpy(ops.embedding(ops.array(larger), ids))[:3]
    assert np.abs(rows - 8 * whole[[0, 95, 7]]).max() < 1e-4


def test_joined_matrices_of_other_modes_are_expanded(random: np.random.Generator) -> None:
    weights = list(random.normal(size=(2, 4, 128)).astype(np.float32))
    for first in PACKINGS:
        for second in PACKINGS:
            parts = [
                quantize(weight, each.group_size, each.bits, each.mode)
                for weight, each in zip(weights, (first, second), strict=True)
            ]
            joined = join([*parts])
            assert isinstance(joined, Quantized) == (first == second)
            found = joined.expanded() if isinstance(joined, Quantized) else joined
            assert np.array_equal(found, np.concatenate([part.expanded() for part in parts]))


# --- checkpoints ------------------------------------------------------------------------------


def write(folder: Path, name: str, packing_of: dict[str, Packing], about: Any) -> Case:
    """A checkpoint in which MLX quantised matrices as `packing_of` says for the beginnings of their
    names, and beside it one of the same name with `-whole` where they are expanded."""
    tiny = wide_case(name)
    stored: dict[str, mx.array] = {}
    whole: dict[str, mx.array] = {}
    for key, value in tiny.tensors().items():
        packing = next((p for start, p in packing_of.items() if key.startswith(start)), None)
        if value.ndim < 2 or packing is None or "position" in key or "token_type" in key:
            stored[key] = whole[key] = mx.array(value)
            continue
        parts = quantized_by_mlx(value, packing)
        stem = key.removesuffix(".weight")
        stored |= dict(zip((key, f"{stem}.scales", f"{stem}.biases"), parts, strict=False))
        whole[key] = mx.array(expanded_by_mlx(parts, packing))
    for path, tensors in ((folder, stored), (folder.with_name(f"{folder.name}-whole"), whole)):
        tiny.write(path)
        mx.save_safetensors(str(path / "model.safetensors"), tensors)
    write_json(folder / "config.json", {**tiny.config, "quantization": about})
    return tiny


def vectors(ops: Ops, folder: Path, tiny: Case) -> np.ndarray:
    return load_encoder(ops, open_checkpoint(Card(id="x", path=folder))).encode(tiny.texts())


@pytest.mark.parametrize("name", ["bert", "qwen3"])
@pytest.mark.parametrize("packing", PACKINGS, ids=NAMES)
def test_vectors_are_those_of_the_expanded_weights(
    name: str, packing: Packing, ops: Ops, tmp_path: Path
) -> None:
    tiny = write(tmp_path / "x", name, {"": packing}, packing._asdict())
    found = vectors(ops, tmp_path / "x", tiny)
    expected = vectors(NumpyOps(), tmp_path / "x-whole", tiny)
    assert np.abs(found - expected).max() < within(1e-5, ops)
    assert np.einsum("nd,nd->n", found, expected).min() > 1 - 1e-6


MIXED = {
    "bert": {
        "encoder.layer.0.attention.self.query": Packing("affine", 8, 64),
        "encoder.layer.0.attention.self.value": Packing("nvfp4", 4, 16),
        "encoder.layer.1.output.dense": Packing("affine", 6, 32),
    },
    "qwen3": {
        "layers.0.self_attn.q_proj": Packing("affine", 8, 64),
        "layers.0.self_attn.v_proj": Packing("mxfp8", 8, 32),
        "layers.1.mlp.down_proj": Packing("affine", 3, 128),
    },
}


@pytest.mark.parametrize("name", MIXED)
def test_a_layer_may_be_quantised_otherwise_than_its_neighbours(
    name: str, ops: Ops, tmp_path: Path
) -> None:
    others = MIXED[name]
    about: dict[str, Any] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    for layer, packing in others.items():
        about[f"model.{layer}"] = packing._asdict()
        if packing.mode == "affine":  # that is what it is if no mode is said
            del about[f"model.{layer}"]["mode"]
    tiny = write(tmp_path / "x", name, {**others, "": Packing("mxfp4", 4, 32)}, about)
    found = vectors(ops, tmp_path / "x", tiny)
    expected = vectors(NumpyOps(), tmp_path / "x-whole", tiny)
    assert np.abs(found - expected).max() < within(1e-5, ops)


@pytest.mark.parametrize("packing", PACKINGS, ids=NAMES)
def test_a_table_that_is_multiplied_stays_packed(packing: Packing) -> None:
    """As the embeddings of a Gemma are."""
    weight = np.random.default_rng(2).normal(size=(8, 128)).astype(np.float32)
    table = quantize(weight, packing.group_size, packing.bits, packing.mode)
    scaled = table * np.float32(11.5)
    assert np.abs(scaled.expanded() - 11.5 * table.expanded()).max() <= 1e-5
    ops, indices = MlxOps("float32"), mx.array([3, 0, 3])
    held = ops.array(scaled)
    assert isinstance(held, Quantized)
    expected = scaled.expanded()[[3, 0, 3]]
    assert np.abs(np.array(ops.embedding(held, indices)) - expected).max() <= 1e-5
    x = np.random.default_rng(3).normal(size=(2, 128)).astype(np.float32)
    found = np.array(ops.linear(mx.array(x), ops.linear_layer(scaled, None)))
    assert np.abs(found - x @ scaled.expanded().T).max() <= 1e-3
    assert isinstance(join([scaled, scaled]), Quantized)
    assert isinstance(join([scaled, table]), Quantized) == (packing.mode == "affine")


def test_a_scale_of_a_whole_matrix_is_refused_by_name(tmp_path: Path) -> None:
    """MLX has it for nvfp4, and mlx-lm writes it for experts."""
    tiny = write(tmp_path / "x", "qwen3", {"": Packing("nvfp4", 4, 16)}, {})
    weights = tmp_path / "x" / "model.safetensors"
    name = "layers.0.mlp.up_proj.global_scale"
    save_file(load_file(weights) | {name: np.ones((), np.float32)}, weights)
    with pytest.raises(CheckpointError, match=f"tensor `{name}` is there"):
        vectors(NumpyOps(), tmp_path / "x", tiny)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"bits": 8, "group_size": 64}, "config.json says that it is of bits 8"),
        ({"bits": 4, "group_size": 32}, "config.json says that it is of group_size 32"),
        ({"bits": 4, "mode": "mxfp4"}, "config.json says that it is of mode 'mxfp4'"),
        ({"bits": 4, "group_size": 64, "LAYER": False}, "says that it is not quantised"),
        ({"bits": 4, "group_size": 64, "LAYER": {"bits": 6}}, "says that it is of bits 6"),
        ({"bits": "4"}, "config.json says that it is of bits '4'"),
    ],
)
def test_what_config_json_says_must_be_what_is_stored(
    about: dict[str, Any], said: str, tmp_path: Path
) -> None:
    layer = "layers.1.self_attn.k_proj"
    about = {key.replace("LAYER", layer): value for key, value in about.items()}
    tiny = write(tmp_path / "x", "qwen3", {"": Packing("affine", 4, 64)}, about)
    with pytest.raises(CheckpointError, match=said) as refused:
        vectors(NumpyOps(), tmp_path / "x", tiny)
    assert ".weight` is quantised by affine in 4 bits and groups of 64" in str(refused.value)
    assert str(tmp_path / "x") in str(refused.value)
