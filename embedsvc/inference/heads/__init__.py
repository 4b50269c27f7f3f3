"""The heads: what follows a backbone, from its hidden states to results.

To add one, write its file and its line here. A result is bytes from when it is computed until a
route asks for it, so that queues and caches carry it without knowing what it is. Several heads of
one pass go by a name joined of theirs (`joined`), and a result is joined of their results.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.heads import lexical, masked_lm, scores, spans, sparse, tokens, vector
from embedsvc.inference.heads.sparse_vector import load
from embedsvc.inference.ops.base import Array, Batch, Ops, Read
from embedsvc.texts.item import Item


class Head(Protocol):
    """What a file in this folder offers."""

    @property
    def PER(self) -> Literal["text", "token"]:  # noqa: N802 - a constant of the module
        """What each row that `forward` returns is for."""
        ...

    @property
    def GIVES(self) -> str:  # noqa: N802 - a constant of the module
        """What its results are, for errors: `vectors`, `scores`."""
        ...

    def prepare(self, ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Any:
        """Its weights, on the device or on the host, from tensors of the checkpoint.

        Raises `CheckpointError` that names the tensor which is missing or wrong.
        """
        ...

    def reads(self, weights: Any) -> Read:
        """The rows of each text whose hidden states it reads."""
        ...

    def forward(self, ops: Ops, weights: Any, hidden: Array, batch: Batch) -> Array:
        """Rows (B, n) or (N, n) from hidden states (N, D); or from (B, D), where `batch.read` is
        the one row of each text that it reads.

        The function is traced, so it must not depend on the values of arrays. Other heads of the
        same pass read `hidden` too, so it must not be overwritten.
        """
        ...

    def pack(
        self, weights: Any, rows: Sequence[NDArray[np.float32]], items: Sequence[Item]
    ) -> list[bytes]:
        """The result of each item, from its row (n,) or from the rows of its tokens (L, n).

        It runs on the host, on any thread. Raises `EmbeddingFailed` if a row is not finite.
        """
        ...

    def unpack(self, results: Sequence[bytes], items: Sequence[Item]) -> Any:
        """The results of items in the form that callers of this head use."""
        ...


HEADS: dict[str, Head] = {
    "lexical": lexical,
    "scores": scores,
    "spans": spans,
    "sparse": sparse,
    "tokens": tokens,
    "vector": vector,
}
"""By name. Names are in the keys of caches (`Item.key`), so that one must not change."""


SPARSE = ("sparse", "lexical")
"""The heads that give sparse vectors, of which a model has one."""
JOINT = "+"
"""Stands between the names of several heads."""


def joined(heads: Iterable[str]) -> str:
    """The name of several heads that one pass computes, or of one.

    >>> joined(["vector", "scores"])
    'scores+vector'
    """
    return JOINT.join(sorted(set(heads)))


def parts_of(head: str) -> tuple[str, ...]:
    """The names that a name was joined of."""
    return tuple(head.split(JOINT))


def comparable(head: str, result: bytes) -> NDArray[np.float32]:
    """Numbers that are nearly the same where a result is computed again."""
    if head not in SPARSE:
        return np.frombuffer(result, "<f4")
    _, values = load(result)  # which of the smallest there are may differ
    return np.array([values.sum(), np.linalg.norm(values)], np.float32)


def heads_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of the heads of a checkpoint: its own, then those that need no weights of their
    own.

    Raises `CheckpointError` if it has a head that is not supported.
    """
    if checkpoint.scoring is not None:
        scores.check(checkpoint)
        return ("scores",)
    if checkpoint.task == "sparse":
        masked_lm.check(checkpoint)
        return ("sparse",)
    if checkpoint.late is not None and not checkpoint.pooling:
        return ("tokens",)
    of_spans = ("spans",) if checkpoint.pooling == ("mean",) else ()
    return ("vector", *of_spans, *(("lexical",) if checkpoint.sparse else ()))
