"""Architectures that have no file here, computed by mlx-embeddings where it is installed.

Only the hidden states are taken from it; pooling and finding files are done here. It takes seconds
to import, so it is not imported before a model needs it.
"""

import importlib.util
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.models.last_layer import read_rows
from embedsvc.inference.ops.base import Array, Batch, Inputs, Ops

Config = dict[str, Any]
UNUSED = ("",)
"""Matches all tensors, since mlx-embeddings reads the files itself."""
EXPANDED = ("embed_tokens.", "embeddings.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""

INSTALL = "pip install 'embedsvc[mlx-embeddings]'"


def check(model_type: str, nearest: str) -> None:
    """Raise `CheckpointError` unless mlx-embeddings is installed and has that architecture.

    `nearest` is the supported one that is most like it.
    """
    problem = f"model_type `{model_type}` is not supported"
    name = model_type.replace("-", "_")
    ask = f"the nearest that is, is `{nearest}`; ask for yours in an issue, with its config.json"
    if not installed():
        raise CheckpointError(f"{problem}; mlx-embeddings may have it: {INSTALL}; {ask}")
    if not name.isidentifier() or not importlib.util.find_spec(f"mlx_embeddings.models.{name}"):
        raise CheckpointError(f"{problem}, nor does mlx-embeddings have it; {ask}")


def installed() -> bool:
    """Whether mlx-embeddings is installed."""
    return importlib.util.find_spec("mlx_embeddings") is not None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model of mlx-embeddings, and what its config.json says of the tables in it."""

    model: Any
    vocabulary: int
    positions: int | None


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """The model of mlx-embeddings, its weights read from the checkpoint's folder.

    Raises `CheckpointError` if the backend is not MLX, or the weights do not fit the model.
    """
    kind = str(config.get("model_type"))
    if ops.name != "mlx":
        raise tensors.error(f"model_type `{kind}` needs the backend `mlx` (--backend mlx)")
    if "vision_config" in config:
        raise tensors.error(f"model_type `{kind}` is not a model of text alone")
    vocabulary: Any = config.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise tensors.error("config.json says no `vocab_size`")
    import mlx.core as mx

    utils = import_module("mlx_embeddings.utils")
    try:
        model = utils.load_model(tensors.folder, path_to_repo=tensors.folder.name)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise tensors.error(f"mlx-embeddings cannot load model_type `{kind}`: {error}") from None
    dtype = getattr(mx, ops.dtype)
    model.set_dtype(dtype)
    _expand_tables(model, dtype)
    positions: Any = config.get("max_position_embeddings")
    return Weights(model, vocabulary, positions if isinstance(positions, int) else None)


def _expand_tables(model: Any, dtype: Any) -> None:
    """Hold tables of embeddings as floats where they are quantised. mlx-embeddings makes masks in
    the dtype of a table, and those of whole numbers hide nothing."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_unflatten

    tables: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedEmbedding):
            packed: Any = module
            how = {key: getattr(packed, key) for key in ("group_size", "bits", "mode")}
            table: Any = nn.Embedding(1, 1)
            table.weight = mx.dequantize(
                packed.weight, packed.scales, packed.get("biases"), **how, dtype=dtype
            )
            tables.append((name, table))
    model.update_modules(tree_unflatten(tables))


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D)."""
    import mlx.core as mx

    ops.looked_up(weights.vocabulary, batch.ids)
    if weights.positions is not None:
        ops.looked_up(weights.positions, batch.positions)
    layout = batch.layout
    ids = batch.ids.reshape(layout.texts, layout.length)
    hidden = weights.model(ids, layout.mask.astype(mx.int32)).last_hidden_state  # (B, L, D)
    hidden = hidden.reshape(layout.texts * layout.length, -1)
    (rows,) = read_rows(ops, batch.read, batch, hidden)
    return rows
