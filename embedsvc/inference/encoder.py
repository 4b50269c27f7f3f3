"""A checkpoint in memory: token ids in, vectors out."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import CheckpointError, DoesNotFit, EmbeddingFailed
from embedsvc.inference import pooling
from embedsvc.inference.models import fallback
from embedsvc.inference.ops.base import Array, Batch, Ops
from embedsvc.inference.pass_cost import measure
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.inference.turns import InTurn, Stepwise, at_once
from embedsvc.texts.item import SpannedText, Text, TokenIds
from embedsvc.texts.late_chunking import pool as pool_spans


class Begun(NamedTuple):
    """A pass under way."""

    order: list[int]  # number of each row's text
    pooled: Array  # (B, D), or more rows where texts are padded to a rounder number


class Encoder:
    """Runs on the device's thread (MLX) or on several at once (NumPy)."""

    def __init__(
        self,
        ops: Ops,
        plan: Plan,
        in_turn: InTurn,
        taken: Callable[[int], None] | None,
    ) -> None:
        checkpoint, architecture, config = plan.checkpoint, plan.architecture, plan.config
        self._ops = ops
        self._checkpoint = checkpoint
        self.rows = plan.rows
        """Tokens that there are vectors for; None where that is not known."""
        tensors, longest = checkpoint.tensors(taken), checkpoint.max_tokens
        if in_turn is at_once:
            weights = architecture.prepare(ops, tensors, config, longest)
        elif architecture is fallback:
            weights = in_turn(lambda: architecture.prepare(ops, tensors, config, longest))
        else:
            stepwise = cast(Ops, Stepwise(ops, in_turn))
            weights = architecture.prepare(stepwise, tensors, config, longest)
        self._steps = pooling.load_steps(checkpoint.card.id, checkpoint.steps)

        def forward(ops: Ops, batch: Batch) -> Array:
            hidden = architecture.forward(ops, weights, config, batch)
            return pooling.pool(ops, checkpoint.pooling, hidden, batch.layout)

        def hidden(ops: Ops, batch: Batch) -> Array:
            return architecture.forward(ops, weights, config, batch)

        self._forward, self._hidden = ops.compiled(forward), ops.compiled(hidden)
        self.backend = ops.name
        self.dtype = ops.dtype
        # Passes now: errors show at load, and the first request does not pay for first use.
        try:
            first = in_turn(lambda: self.encode([np.zeros(min(2, longest), dtype=np.int32)]))
        except (CheckpointError, EmbeddingFailed) as error:
            raise tensors.error(str(error)) from None
        self.dimensions = first.shape[1]
        typical = [np.zeros(min(n, longest), dtype=np.int32) for n in range(32, 64)]
        ops.tune(lambda: self.encode(typical), in_turn)
        self.cost = measure(self.encode, checkpoint.max_tokens, ops.max_batch_tokens, in_turn)

    def encode(self, texts: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Vectors (B, D), in the order of the texts.

        Raises `EmbeddingFailed` if a vector is not finite or is zero, or a token has no row in a
        table of the model's.
        """
        return self.finish(self.begin(texts))

    def encode_spans(self, texts: Sequence[Text]) -> list[NDArray[np.float32]]:
        """For each text its vector (D,), or those of its spans (k, D); means, whatever the pooling.

        Raises what `encode` raises, and `EmbeddingFailed` for spans that are no part of their text.
        """
        plain = [text for text in texts if not isinstance(text, SpannedText)]
        vectors = iter(self.encode(plain)) if plain else iter(())
        return [
            self._encode_spans(text) if isinstance(text, SpannedText) else next(vectors)
            for text in texts
        ]

    def _encode_spans(self, text: SpannedText) -> NDArray[np.float32]:
        begins, ends = np.array(text.spans, dtype=np.int64).reshape(-1, 2).T
        if not ((begins >= 0) & (begins < ends) & (ends <= len(text))).all() or not len(begins):
            raise EmbeddingFailed(f"A span is no part of the {len(text)} tokens of its text.")
        hidden = self._ops.to_numpy(self._hidden(self._ops.batch([text.ids])))
        pooled = pool_spans(hidden[: len(text)], text.spans)  # less padding
        return self._finished(pooled)

    def begin(self, texts: Sequence[TokenIds]) -> Begun:
        """Have the hardware begin with the texts."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batch = self._ops.batch([texts[i] for i in order])
        return Begun(order, self._ops.begin(self._forward(batch)))

    def finish(self, begun: Begun) -> NDArray[np.float32]:
        """What `encode` returns; may be called on any thread."""
        rows = self._finished(self._ops.to_numpy(begun.pooled)[: len(begun.order)])
        if len(rows) == 1:
            return rows
        vectors = np.empty_like(rows)
        vectors[begun.order] = rows
        return vectors

    def close(self) -> None:
        """Let go of the weights; on the device. It encodes nothing from then on."""
        del self._forward, self._hidden

    def _finished(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled rows after the modules that follow pooling."""
        for step in self._steps:
            pooled = step(pooled)
        return pooling.finish(pooled, normalize=self._checkpoint.normalize)


def load_encoder(
    ops: Ops,
    checkpoint: Checkpoint,
    in_turn: InTurn = at_once,
    taken: Callable[[int], None] | None = None,
    plan: Plan | None = None,
) -> Encoder:
    """The checkpoint on the device, tried with one small batch.

    What has to be done on the device is done `in_turn`, step by step; `taken` is told the bytes of
    each tensor that was read; `plan` is made anew if it is not given.

    Raises `CheckpointError` that names what is missing, wrong or not supported, `DoesNotFit` if
    the device has less memory than the weights take.
    """
    if plan is None:
        plan = make_plan(checkpoint, ops.dtype, packed=ops.name == "mlx")
    if plan.size > ops.memory:
        needed, there = (f"{size / 1e9:.3g} GB" for size in (plan.size, ops.memory))
        model = checkpoint.card.id
        raise DoesNotFit(f"model `{model}` needs {needed}, and the device has {there}")
    return Encoder(ops, plan, in_turn, taken)
