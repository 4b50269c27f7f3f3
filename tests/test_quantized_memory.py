"""How much memory quantised weights are said to take, and how much they do."""

import gc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.quantization import Packing
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.plan import Plan, make_plan
from tests.support.checkpoints import write_json
from tests.support.quantized_cases import quantized_case, wide_case

NAMES = (
    *("bert", "xlm-roberta", "gte", "jina_bert", "nomic_bert", "modernbert"),
    *("qwen3", "gemma3_text"),
)
FOUR, MXFP4, THREE = Packing("affine", 4, 64), Packing("mxfp4", 4, 32), Packing("affine", 3, 32)


def held(plan: Plan) -> int:
    """Bytes that MLX holds for the weights."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    tensors = plan.checkpoint.tensors()
    weights = plan.architecture.prepare(MlxOps(plan.dtype), tensors, plan.config, plan.inputs)
    gc.collect()
    mx.clear_cache()
    taken = mx.get_active_memory() - before
    del weights
    gc.collect()
    mx.clear_cache()
    return taken


@pytest.mark.parametrize("packing", [FOUR, MXFP4], ids=["affine", "mxfp4"])
@pytest.mark.parametrize(
    "name",
    ["bert", "xlm-roberta", "gte", "jina_bert", "nomic_bert", "modernbert", "qwen3", "gemma3_text"],
)
def test_memory_on_mlx_is_what_was_estimated(name: str, packing: Packing, tmp_path: Path) -> None:
    quantized_case(name, packing).write(tmp_path)
    checkpoint = open_checkpoint(Card(id="x", path=tmp_path))
    dtype: Dtype = "bfloat16" if "gemma" in name else "float16"
    plan = make_plan(checkpoint, dtype, backend="mlx")
    assert 0.95 <= plan.size / held(plan) <= 1.15


def test_layers_that_are_computed_as_one_count_whole_if_they_are_quantised_unlike(
    tmp_path: Path,
) -> None:
    """As in mixtures of bits, where values have more of them than queries and keys."""
    case = wide_case("qwen3")
    original = open_checkpoint(Card(id="x", path=case.write(tmp_path / "original")))
    sizes: dict[int, int] = {}
    for bits in (3, 6):
        convert(original, tmp_path / str(bits), Precision("float32", bits=bits, group_size=32))
        sizes[bits] = make_plan(opened(tmp_path / str(bits)), "float32", backend="mlx").size
    mixed = tmp_path / "3" / "model.safetensors"
    stored, six = mx.load(str(mixed)), mx.load(str(tmp_path / "6" / "model.safetensors"))
    layer = "layers.1.self_attn.v_proj"
    stored |= {name: value for name, value in six.items() if name.startswith(layer)}
    mx.save_safetensors(str(mixed), stored)
    about = {"bits": 3, "group_size": 32, layer: {"bits": 6, "group_size": 32}}
    write_json(tmp_path / "3" / "config.json", case.config | {"quantization": about})
    checkpoint = opened(tmp_path / "3")
    plan = make_plan(checkpoint, "float32", backend="mlx")
    assert plan.size > sizes[6] > sizes[3]
    assert 1 <= plan.size / held(plan) <= 1.4  # with the layer behind the attention


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder))


@pytest.mark.parametrize("packing", [FOUR, MXFP4, THREE], ids=["affine", "mxfp4", "3bit"])
def test_expanded_weights_count_as_floats(packing: Packing, tmp_path: Path) -> None:
    case = quantized_case("qwen3", packing)
    quantized = opened(case.write(tmp_path / "quantized"))
    whole = opened(wide_case("qwen3").write(tmp_path / "whole"))
    size = make_plan(quantized, "float32", backend="numpy").size
    expanded = make_plan(whole, "float32", backend="numpy").size
    assert expanded <= size <= 1.25 * expanded
    plan = make_plan(quantized, "float32", backend="mlx")
    assert plan.stored <= plan.size < expanded


@pytest.mark.parametrize("shape", [(), (0,), (128, 0), (2, 2, 2)])
def test_scales_of_any_shape_are_counted_before_they_are_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    quantized_case("qwen3", FOUR).write(tmp_path)
    weights = tmp_path / "model.safetensors"
    scales = {"layers.0.self_attn.q_proj.scales": np.zeros(shape, np.float32)}
    save_file(load_file(weights) | scales, weights)
    assert make_plan(opened(tmp_path), "float32", backend="mlx").size > 0
