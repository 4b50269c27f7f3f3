"""The heads: what follows a backbone, from its hidden states to results. A file here, a line each.

A result is bytes from the moment it is computed until a route asks for it: the queue and the caches
carry what they do not understand.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.heads import scores, spans, vector
from embedsvc.inference.ops.base import Array, Batch, Ops
from embedsvc.texts.item import Item


class Head(Protocol):
    """What a file in this folder offers."""

    @property
    def PER(self) -> Literal["text", "token"]:  # noqa: N802 - a constant of the module
        """What a row of `forward` stands for."""
        ...

    @property
    def GIVES(self) -> str:  # noqa: N802 - a constant of the module
        """What its results are, in the words of an error."""
        ...

    def prepare(self, ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Any:
        """Its weights, on the device or on the host; it takes its tensors from the backbone's.

        Raises `CheckpointError` that names the tensor which is missing or wrong.
        """
        ...

    def forward(self, ops: Ops, weights: Any, hidden: Array, batch: Batch) -> Array:
        """Rows (B, n) or (N, n) from hidden states (N, D); traced, so it asks for no value."""
        ...

    def pack(
        self, weights: Any, rows: Sequence[NDArray[np.float32]], items: Sequence[Item]
    ) -> list[bytes]:
        """The result of each item, from its row (n,) or from those of its tokens (L, n).

        It runs on the host, on any thread. Raises `EmbeddingFailed` where a row is not finite.
        """
        ...

    def unpack(self, results: Sequence[bytes], items: Sequence[Item]) -> Any:
        """The results of items as who asks for this head wants them."""
        ...


HEADS: dict[str, Head] = {"scores": scores, "spans": spans, "vector": vector}
"""By the name that caches know them by."""


def heads_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The heads of a checkpoint, its own before those that are made of it.

    Raises `CheckpointError` if it has one that there is no file for.
    """
    if checkpoint.pooling:
        return ("vector", "spans") if checkpoint.pooling == ("mean",) else ("vector",)
    if checkpoint.class_name in scores.CLASSES:
        return ("scores",)
    raise CheckpointError(
        f"model `{checkpoint.card.id}`: {checkpoint.folder}/config.json: "
        f"`{checkpoint.class_name}` is not supported"
    )
