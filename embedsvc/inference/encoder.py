"""A checkpoint in memory: a backbone and its heads. Items in, results out, as bytes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import CheckpointError, DoesNotFit, EmbeddingFailed
from embedsvc.inference.heads import HEADS, Head
from embedsvc.inference.models import fallback
from embedsvc.inference.ops.base import Array, Batch, Inputs, Ops
from embedsvc.inference.pass_cost import Cost, measure
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.inference.turns import InTurn, Stepwise, at_once
from embedsvc.texts.item import Item, TokenIds


class Ready(NamedTuple):
    """A head with its weights, behind the backbone that it belongs to."""

    head: Head
    weights: Any
    forward: Callable[[Batch], Array]
    """The whole pass: rows (B, n) or (N, n), as the head says."""


class Begun(NamedTuple):
    """A pass under way."""

    ready: Ready
    items: list[Item]  # in the order of the rows
    order: list[int]  # the place of each of them among the items asked for
    batch: Batch
    rows: Array  # of the pass; more than there are items where texts are padded to a rounder number


class Encoder:
    """Runs on the device's thread (MLX) or on several at once (on a CPU)."""

    def __init__(
        self,
        ops: Ops,
        plan: Plan,
        in_turn: InTurn,
        taken: Callable[[int], None] | None,
    ) -> None:
        checkpoint = plan.checkpoint
        self._ops = ops
        self._inputs = Inputs(checkpoint.max_tokens, pairs="scores" in plan.heads)
        self.rows = plan.rows
        """Tokens that there are vectors for; None where that is not known."""
        self.backend = ops.name
        self.dtype = ops.dtype
        self.heads = self._load(plan, in_turn, taken)
        # Passes now: errors show at load, and the first request does not pay for first use.
        own = plan.heads[0]
        try:
            first = in_turn(lambda: self.run([self._text(2)], own))
        except (CheckpointError, EmbeddingFailed) as error:
            raise checkpoint.error(str(error)) from None
        self.dimensions = len(first[0]) // 4 if own == "vector" else 0
        """Of a vector; 0 if it gives none."""
        typical = [self._text(length) for length in range(32, 64)]
        ops.tune(lambda: self.run(typical, own), in_turn)
        self.cost = self._measure(own, in_turn)

    def run(self, items: Sequence[Item], head: str) -> list[bytes]:
        """The result of each item, in their order.

        Raises `EmbeddingFailed` if one is not finite, or a token has no row in a table of the
        model's.
        """
        return self.finish(self.begin(items, head))

    def encode(self, texts: Sequence[TokenIds]) -> NDArray[np.float32]:
        """The vectors (B, D) of texts. Raises what `run` does."""
        items = [Item(ids) for ids in texts]
        return HEADS["vector"].unpack(self.run(items, "vector"), items)

    def begin(self, items: Sequence[Item], head: str) -> Begun:
        """Have the hardware begin with the items."""
        order = sorted(range(len(items)), key=lambda i: len(items[i]))
        sorted_items = [items[i] for i in order]
        types = [_types(item) for item in sorted_items] if self._inputs.pairs else None
        batch = self._ops.batch([item.ids for item in sorted_items], types)
        ready = self.heads[head]
        rows = self._ops.begin(ready.forward(batch))
        return Begun(ready, sorted_items, order, batch, rows)

    def finish(self, begun: Begun) -> list[bytes]:
        """What `run` returns; may be called on any thread."""
        head, items = begun.ready.head, begun.items
        rows: Any = self._ops.to_numpy(begun.rows)
        if head.PER == "token":
            rows = self._ops.split(rows, begun.batch.layout)
        packed = head.pack(begun.ready.weights, rows[: len(items)], items)
        results = [b""] * len(items)
        for place, result in zip(begun.order, packed, strict=True):
            results[place] = result
        return results

    def close(self) -> None:
        """Let go of the weights; on the device. It computes nothing from then on."""
        del self.heads

    def _load(
        self, plan: Plan, in_turn: InTurn, taken: Callable[[int], None] | None
    ) -> dict[str, Ready]:
        """The backbone's weights and those of its heads, with nothing left over."""
        checkpoint, architecture, config = plan.checkpoint, plan.architecture, plan.config
        tensors, ops = checkpoint.tensors(taken), self._ops
        if architecture is fallback:
            weights = in_turn(lambda: architecture.prepare(ops, tensors, config, self._inputs))
        else:
            if in_turn is not at_once:
                ops = cast(Ops, Stepwise(ops, in_turn))
            weights = architecture.prepare(ops, tensors, config, self._inputs)

        def behind(head: Head) -> Ready:
            own = head.prepare(ops, tensors, checkpoint)

            def forward(ops: Ops, batch: Batch) -> Array:
                hidden = architecture.forward(ops, weights, batch)
                return head.forward(ops, own, hidden, batch)

            return Ready(head, own, self._ops.compiled(forward))

        heads = {name: behind(HEADS[name]) for name in plan.heads}
        tensors.finish(architecture.UNUSED)
        return heads

    def _measure(self, head: str, in_turn: InTurn) -> Cost:
        """What a pass costs. All heads are taken to cost the same: the backbone is what counts."""
        most, limit = self._ops.max_batch_tokens, self._inputs.longest

        def encode(texts: Sequence[TokenIds]) -> object:
            return self.run([Item(ids) for ids in texts], head)

        return measure(encode, limit, most, in_turn)

    def _text(self, tokens: int) -> Item:
        return Item(np.zeros(min(tokens, self._inputs.longest), dtype=np.int32))


def _types(item: Item) -> TokenIds:
    return np.zeros_like(item.ids) if item.types is None else item.types


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
