"""How many kernels a pass on MLX takes on a GPU, as docs/architecture.md says it."""

import re
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.heads.pooled import pool, read_by
from embedsvc.inference.models import Architecture, bert, llama, modernbert
from embedsvc.inference.ops.base import Inputs
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.mlx.layout import lay_out
from tests.support.mlx_kernels import as_on_metal, count
from tests.support.project import ROOT

SIZES = {"vocab_size": 50, "max_position_embeddings": 4096, "intermediate_size": 96}
BERT = SIZES | {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
MODELS: dict[str, tuple[Architecture, Pooling, dict[str, Any]]] = {
    "all-MiniLM-L6-v2": (
        bert,
        "mean",
        BERT | {"num_hidden_layers": 6, "num_attention_heads": 2, "hidden_size": 64},
    ),
    "bge-base": (
        bert,
        "cls",
        BERT | {"num_hidden_layers": 12, "num_attention_heads": 2, "hidden_size": 128},
    ),
    "ModernBERT-base": (
        modernbert,
        "mean",
        SIZES
        | {"num_hidden_layers": 22, "num_attention_heads": 2, "hidden_size": 128}
        | {"norm_eps": 1e-5, "local_attention": 128, "hidden_activation": "gelu"},
    ),
    "Qwen3-Embedding-0.6B": (
        llama,
        "last_token",
        SIZES
        | {"num_hidden_layers": 28, "num_attention_heads": 2, "hidden_size": 128}
        | {"num_key_value_heads": 1, "head_dim": 128, "hidden_act": "silu"}
        | {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "model_type": "qwen3"},
    ),
}
"""Models with the layers and the widths of heads of the real ones, narrow otherwise."""
TABLE = r"^\| ([\w.-]+) +\| \d+ +\| (\d+) +\| (\d+) +\|$"


class Zeros:
    """Stands for the tensors of a checkpoint: all are there."""

    def take(self, name: str, *shape: int) -> Any:
        return np.zeros(shape, np.float32)

    take_weight = take


def kernels(name: str, tokens: int) -> int:
    """Those of a pass over one text of so many tokens, in half precision."""
    architecture, pooling, fields = MODELS[name]
    config = architecture.Config(**fields)
    tensors: Any = Zeros()
    with as_on_metal():
        ops = MlxOps("float16")
        ops.double_heads = True
        weights = architecture.prepare(ops, tensors, config, Inputs(longest=tokens))

        def run(grid: mx.array) -> mx.array:
            batch = replace(lay_out((grid,), mx.float16), read=read_by([pooling]))
            hidden = architecture.forward(ops, weights, batch)
            return pool(ops, hidden, batch, [pooling]).astype(mx.float32)

        return count(run, mx.zeros((1, tokens), mx.int32))


def test_passes_take_as_many_kernels_as_the_architecture_page_says() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(TABLE, page, re.MULTILINE)
    said = {name: (int(short), int(long)) for name, short, long in rows}
    assert said == {name: (kernels(name, 32), kernels(name, 1024)) for name in MODELS}


@pytest.mark.parametrize(
    ("expected", "function"),
    [
        (0, lambda x: x.reshape(4, 4, 4).transpose(0, 2, 1)[:, ::-1]),
        (1, lambda x: x.reshape(4, 4, 4).transpose(0, 2, 1).reshape(4, 16)),
        (0, lambda x: x[:, 4:12].reshape(4, 2, 4)),
        (1, lambda x: x + 1.0),
        (2, lambda x: mx.concatenate([x, x])),
        (2, lambda x: mx.fast.rms_norm(x[:, :8], x[0, :8], 1e-5)),
        (1, lambda x: mx.compile(lambda y, z: mx.erf(y) * z + 2)(x, x)),
    ],
)
def test_views_are_no_kernels_and_copies_are(expected: int, function: Any) -> None:
    with as_on_metal():
        assert count(function, mx.zeros((4, 16))) == expected
