"""The hidden states of a checkpoint on any backend."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.models import find_architecture, read_config
from embedsvc.inference.ops.base import Batch, Inputs, Ops, Read


def hidden_states(
    ops: Ops, checkpoint: Checkpoint, texts: list[NDArray[np.int32]], read: Read = "all"
) -> NDArray[np.float32]:
    """Those of all texts, end to end (N, D), or those that are read of each (B, D)."""
    architecture = find_architecture(checkpoint.model_type, checkpoint.config)
    assert architecture is not None
    config = read_config(architecture, checkpoint.config)
    weights = architecture.prepare(ops, checkpoint.tensors(), config, Inputs(checkpoint.max_tokens))

    def forward(ops: Ops, batch: Batch) -> Any:
        return architecture.forward(ops, weights, dataclasses.replace(batch, read=read))

    batch = ops.batch(texts)
    rows = ops.to_numpy(ops.compiled(forward)(batch))
    if read == "all":
        return np.concatenate(ops.split(rows, batch.layout))
    return rows[: len(texts)]
