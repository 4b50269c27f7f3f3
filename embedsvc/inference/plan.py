"""How a checkpoint is computed: all that is known of it before its weights are read."""

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.files import as_object
from embedsvc.checkpoints.modules import Dense, LayerNorm
from embedsvc.checkpoints.tensors import BITS, Entry, Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.heads import heads_of
from embedsvc.inference.models import (
    EXCEED_FLOAT16,
    Architecture,
    fallback,
    find_architecture,
    read_config,
    table_rows,
)
from embedsvc.inference.ops.base import Inputs
from embedsvc.wording.msgspec_errors import plain_types


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkpoint whose files agree with each other, as far as they can be known unread."""

    checkpoint: Checkpoint
    architecture: Architecture
    config: Any
    """What the architecture reads of config.json."""
    heads: tuple[str, ...]
    """Their names, the checkpoint's own first."""
    rows: int | None
    """Tokens that there are vectors for; None where only mlx-embeddings knows."""
    size: int
    """Bytes of memory that the weights take, and what is made beside them."""
    stored: int
    """Bytes of all tensors in the files."""

    @property
    def inputs(self) -> Inputs:
        """What the pass is prepared for."""
        return Inputs(self.checkpoint.max_tokens, pairs="scores" in self.heads)


def make_plan(checkpoint: Checkpoint, dtype: Dtype, *, packed: bool) -> Plan:
    """How a checkpoint is computed in that dtype, quantised weights `packed` or not.

    Raises `CheckpointError` if it cannot be, or its files do not agree.
    """
    architecture, config = find_pass(checkpoint, dtype)
    tensors = checkpoint.tensors()
    table_numbers = getattr(config, "table_numbers", None)
    entries = list(tensors.entries().values())
    return Plan(
        checkpoint=checkpoint,
        architecture=architecture,
        config=config,
        heads=heads_of(checkpoint),
        rows=table_rows(architecture, config, tensors),
        size=_weights(checkpoint, entries, dtype, packed=packed)
        + _steps(checkpoint)
        + (4 * table_numbers(checkpoint.max_tokens) if table_numbers else 0),
        stored=sum(entry.nbytes for entry in entries),
    )


def find_pass(checkpoint: Checkpoint, dtype: Dtype) -> tuple[Architecture, Any]:
    """The architecture that computes a checkpoint in that dtype, and its config.

    Raises `CheckpointError` if there is none, or the checkpoint is not as it takes them.
    """
    model, kind = checkpoint.card.id, checkpoint.model_type
    architecture: Architecture | None = find_architecture(kind, checkpoint.config)
    if dtype == "float16" and kind in EXCEED_FLOAT16:
        raise CheckpointError(
            f'model `{model}`: {kind} exceeds float16; give its card `dtype = "bfloat16"`'
        )
    file = checkpoint.folder / "config.json"
    try:
        if architecture is None:
            fallback.check(kind)
            architecture = fallback
        config = read_config(architecture, checkpoint.config)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"model `{model}`: {file}: {plain_types(str(error))}") from None
    except CheckpointError as error:
        raise CheckpointError(f"model `{model}`: {file}: {error}") from None
    longest = getattr(config, "longest", checkpoint.max_tokens)
    if checkpoint.max_tokens > longest:
        raise CheckpointError(
            f"model `{model}`: it takes {longest} tokens, not {checkpoint.max_tokens}; "
            f"give its card `max_tokens = {longest}`"
        )
    return architecture, config


def _weights(checkpoint: Checkpoint, entries: list[Entry], dtype: Dtype, *, packed: bool) -> int:
    item = 4 if dtype == "float32" else 2
    size = 0
    for entry in entries:
        count = math.prod(entry.shape)
        if entry.dtype != "U32":
            size += count * item
        elif packed:
            size += count * 4
        else:
            size += count * 32 // _bits(checkpoint) * item
    return size


def _bits(checkpoint: Checkpoint) -> int:
    """Of a quantised weight; where that is not said, as few as there may be."""
    bits = (as_object(checkpoint.config.get("quantization")) or {}).get("bits")
    return bits if bits in BITS else min(BITS)


def _steps(checkpoint: Checkpoint) -> int:
    """Bytes of the modules after pooling, which are kept in float32."""
    size = 0
    for step in checkpoint.steps:
        if isinstance(step, Dense | LayerNorm):
            entries = Tensors(checkpoint.card.id, step.folder).entries().values()
            size += sum(4 * math.prod(entry.shape) for entry in entries)
    return size
