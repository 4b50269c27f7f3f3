"""Weights as checkpoints store them: in shards, in 16 bits, quantised, under other names."""

from pathlib import Path

import mlx.core as mx
import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.quantized import Quantized, join, quantize
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import CONFIG, write_bert, write_json

IDS = [np.array([2, 5, 9, 3], np.int32), np.array([2, 30, 31, 12, 3], np.int32)]


def checkpoint(folder: Path) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder))


def vectors(folder: Path, ops: Ops | None = None) -> np.ndarray:
    return load_encoder(ops or NumpyOps(), checkpoint(folder)).encode(IDS)


def shard(folder: Path, parts: int = 3) -> dict[str, str]:
    """Cut the weights into shards with an index, and return the index."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        some = dict(list(whole.items())[part::parts])
        save_file(some, folder / file)
        index |= dict.fromkeys(some, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return index


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    whole = vectors(write_bert(tmp_path))
    shard(tmp_path)
    assert np.array_equal(vectors(tmp_path), whole)


def test_a_shard_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    write_bert(tmp_path)
    shard(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors: No such file"):
        vectors(tmp_path)


def test_an_index_never_names_a_file_of_another_folder(tmp_path: Path) -> None:
    write_bert(tmp_path / "model")
    index = shard(tmp_path / "model")
    elsewhere = "../model-00001-of-00003.safetensors"
    save_file(load_file(tmp_path / "model" / index["pooler.dense.bias"]), tmp_path / elsewhere[3:])
    for name, file in index.items():
        index[name] = f"../{file}"
    write_json(tmp_path / "model" / "model.safetensors.index.json", {"weight_map": index})
    files = {
        entry.file.parent for entry in checkpoint(tmp_path / "model").tensors().entries().values()
    }
    assert files == {tmp_path / "model"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    write_bert(tmp_path)
    file = str(tmp_path / "model.safetensors")
    stored = {name: value.astype(getattr(mx, dtype)) for name, value in mx.load(file).items()}
    mx.save_safetensors(file, stored)
    tensors = checkpoint(tmp_path).tensors()
    for name, value in stored.items():
        expected = np.array(value.astype(mx.float32))
        assert np.array_equal(tensors.take(name, *expected.shape), expected)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.pt", r"model\.pt is there, but only safetensors files and pytorch_model\.bin are"),
        ("other.safetensors", r"model\.safetensors is missing"),
    ],
)
def test_other_weights_are_never_opened(tmp_path: Path, file: str, said: str) -> None:
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / file)
    with pytest.raises(CheckpointError, match=said):
        vectors(tmp_path)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"bert.{name}",
        lambda name: f"model.{name}",
        # What MLX's first converter for BERT made of the names.
        lambda name: (
            name.replace(".layer.", ".layers.")
            .replace(".self.key.", ".key_proj.")
            .replace(".self.query.", ".query_proj.")
            .replace(".self.value.", ".value_proj.")
            .replace(".attention.output.dense.", ".attention.out_proj.")
            .replace(".attention.output.LayerNorm.", ".ln1.")
            .replace(".output.LayerNorm.", ".ln2.")
            .replace(".intermediate.dense.", ".linear1.")
            .replace(".output.dense.", ".linear2.")
            .replace(".LayerNorm.", ".norm.")
            .replace("pooler.dense.", "pooler.")
        ),
    ],
)
def test_the_names_of_other_converters_are_known(tmp_path: Path, rename) -> None:
    plain = vectors(write_bert(tmp_path))
    file = tmp_path / "model.safetensors"
    save_file({rename(name): value for name, value in load_file(file).items()}, file)
    assert np.array_equal(vectors(tmp_path), plain)


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_that_are_only_counted_are_read(tmp_path: Path, shards: int) -> None:
    """As in mlx-community/multilingual-e5-small-mlx, which has one."""
    plain = vectors(write_bert(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    for n in range(shards):
        part = dict(list(tensors.items())[n::shards])
        save_file(part, tmp_path / f"weights.{n:02}.safetensors")
    assert np.array_equal(vectors(tmp_path), plain)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    save_file(whole | {"bert.pooler.dense.bias": whole["pooler.dense.bias"]}, file)
    with pytest.raises(CheckpointError, match=r"tensor `pooler\.dense\.bias` is there twice"):
        vectors(tmp_path)


# --- quantised --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_matrices_are_quantised_and_expanded_as_mlx_does_it(
    bits: int, group_size: int, random: np.random.Generator
) -> None:
    weight = random.normal(size=(8, 256)).astype(np.float32)
    weight[1], weight[2], weight[3] = 0, 1.5, np.abs(weight[3])
    quantized = quantize(weight, group_size, bits)
    packed, scales, biases = mx.quantize(mx.array(weight), group_size, bits)
    assert np.array_equal(quantized.packed, np.array(packed))
    assert np.array_equal(quantized.scales, np.array(scales))
    assert np.array_equal(quantized.biases, np.array(biases))
    expanded = np.array(mx.dequantize(packed, scales, biases, group_size, bits))
    assert np.array_equal(quantized.expanded(), expanded)
    assert quantized.shape == weight.shape


def test_quantised_matrices_are_joined_packed_unless_they_are_packed_otherwise(
    random: np.random.Generator,
) -> None:
    weights = list(random.normal(size=(2, 4, 64)).astype(np.float32))
    same = join([quantize(weight, 32, 4) for weight in weights])
    assert isinstance(same, Quantized)
    parts = [quantize(weights[0], 32, 4), quantize(weights[1], 64, 8)]
    other = join([*parts])
    assert isinstance(other, np.ndarray)
    assert np.array_equal(same.expanded()[:4], parts[0].expanded())
    assert np.array_equal(other, np.concatenate([part.expanded() for part in parts]))
    assert np.array_equal(join([*weights]), np.concatenate(weights))


@pytest.mark.parametrize("bits", [4, 8])
def test_products_and_tables_are_those_of_the_expanded_matrix(
    ops: Ops, bits: int, random: np.random.Generator
) -> None:
    quantized = quantize(random.normal(size=(96, 64)).astype(np.float32), 32, bits)
    whole = quantized.expanded()
    x, bias = random.normal(size=(5, 64)).astype("f"), random.normal(size=96).astype("f")
    layer = ops.linear_layer(quantized, bias)
    found = ops.to_numpy(ops.linear(ops.array(x), layer))
    assert np.abs(found - (x @ whole.T + bias)).max() < 1e-4
    plain = ops.linear_layer(quantized, None)
    assert np.abs(ops.to_numpy(ops.linear(ops.array(x), plain)) - x @ whole.T).max() < 1e-4
    ids = ops.batch([np.array([0, 95, 7], np.int32)]).ids
    rows = ops.to_numpy(ops.embedding(ops.array(quantized), ids))[:3]
    assert np.abs(rows - whole[[0, 95, 7]]).max() < 1e-5


def test_on_mlx_a_quantised_matrix_stays_packed(random: np.random.Generator) -> None:
    quantized = quantize(random.normal(size=(96, 64)).astype(np.float32), 32, 4)
    assert isinstance(MlxOps("float32").linear_layer(quantized, None).weight, Quantized)


def quantized_file(folder: Path, **parts: np.ndarray) -> Tensors:
    weight = quantize(np.random.default_rng(11).normal(size=(8, 64)).astype(np.float32), 32, 4)
    stored = {"a.weight": weight.packed, "a.scales": weight.scales, "a.biases": weight.biases}
    save_file({**stored, **parts}, folder / "model.safetensors")
    return Tensors("x", folder)


@pytest.mark.parametrize(
    ("parts", "shape", "said"),
    [
        ({}, (8, 256), r"`a\.weight` of 1 bits in groups of 128 is not supported"),
        ({"a.scales": np.zeros((8, 4), "f")}, (8, 64), "4 bits in groups of 16 is not supported"),
        ({"a.scales": np.zeros((8, 1), "u1")}, (8, 64), "in groups of 64 is not supported"),
        (
            {"a.scales": np.zeros((8, 2), "u1")},
            (8, 64),
            r"`a\.biases` is there, and mxfp4 has none",
        ),
        ({"a.scales": np.zeros((8, 2), "i4")}, (8, 64), r"`a\.scales` holds int32, not floats"),
        ({"a.scales": np.zeros((7, 2), "f")}, (8, 64), r"`a\.scales` has shape \(7, 2\), not"),
        ({"a.scales": np.zeros((8, 2, 1), "f")}, (8, 64), "is quantised, but not a matrix"),
        ({}, (9, 64), r"`a\.weight` has shape \(8, 64\), not \(9, 64\)"),
        ({"a.biases": np.zeros((8, 1), "f")}, (8, 64), r"`a\.biases` has shape"),
        ({"a.weight": np.zeros((8, 8), "i4")}, (8, 64), "is not supported"),
    ],
)
def test_a_wrong_quantised_tensor_is_refused_by_name(
    tmp_path: Path, parts: dict[str, np.ndarray], shape: tuple[int, int], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        quantized_file(tmp_path, **parts).take("a.weight", *shape)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised by `gptq`"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by `awq`"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "by `bitsandbytes`"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantised by `mxfp4`"),
        ({"quantization": {"mode": "int4", "bits": 4}}, "quantised by `int4`"),
        ({"quantization": {"bits": 4, "layers.0": {"mode": ["x"]}}}, r"quantised by `\['x'\]`"),
    ],
)
def test_another_way_to_quantise_is_refused_by_name(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    write_bert(tmp_path)
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(CONFIG | config))
    with pytest.raises(CheckpointError, match=said):
        checkpoint(tmp_path)
