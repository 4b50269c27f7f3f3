"""A checkpoint in memory: a backbone and its heads. Items in, results out, as bytes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.steps import Dense
from embedsvc.errors import CheckpointError, DoesNotFit, EmbeddingFailed
from embedsvc.inference.heads import HEADS, Head, parts_of, sections
from embedsvc.inference.models import fallback
from embedsvc.inference.ops.base import Array, Batch, Ops
from embedsvc.inference.ops.tuning import Kept, Tuning
from embedsvc.inference.pass_cost import Cost, measure
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.inference.turns import Stepwise, on_this_thread
from embedsvc.texts.item import Item, TokenIds

Backbone = Callable[[Ops, Batch], Array]
"""The pass up to the hidden states, of the rows that are read."""


class LoadedHead(NamedTuple):
    """A head with its weights."""

    head: Head
    weights: Any
    forward: Callable[[Batch], Array]
    """The whole pass, backbone and head: rows (B, n) or (N, n), see `Head.PER`."""


class JoinedHeads(NamedTuple):
    """Several heads of one pass."""

    heads: tuple[LoadedHead, ...]
    forward: Callable[[Batch], tuple[Array, ...]]
    """The whole pass, the backbone once: what `LoadedHead.forward` returns, for each head."""


class RunningPass(NamedTuple):
    """A pass that the hardware has begun."""

    heads: tuple[LoadedHead, ...]
    items: list[Item]  # by their lengths, as they lie in the batch
    order: list[int]  # the place of each of them among the items asked for
    batch: Batch
    rows: tuple[Array, ...]  # for each head; more rows than items where the batch is padded


class Encoder:
    """Runs passes on the thread that calls it: the one of MLX, or any of several on a CPU."""

    dimensions: int
    """Components of a vector; 0 if the model gives none. `load_encoder` sets it."""
    cost: Cost
    """What a pass costs. All heads count alike, since the backbone takes nearly all of the time.
    `load_encoder` sets it."""
    max_batch_tokens: int
    """Tokens of one batch, padding included, whose pass has room in memory. `load_encoder` sets
    it."""

    def __init__(self, ops: Ops, plan: Plan, backbone: Backbone, heads: dict[str, Any]) -> None:
        """`heads` has the weights of each, by name, the checkpoint's own first."""
        self._ops = ops
        self._inputs = plan.inputs
        self._backbone = backbone
        self.heads = {name: self._load(HEADS[name], own) for name, own in heads.items()}
        """By name, the checkpoint's own first."""
        self._joined: dict[str, JoinedHeads] = {}
        self.rows = plan.rows
        """Tokens that have word embeddings; None where that is not known."""
        self.backend = ops.name
        self.dtype: Dtype = ops.dtype

    def run(self, items: Sequence[Item], head: str) -> list[bytes]:
        """The result of each item, in their order.

        `head` may be several, joined; then a result is joined too (`heads.sections`). Raises
        `EmbeddingFailed` if one is not finite, or a token has no row in one of the model's tables.
        """
        return self.collect(self.begin(items, head))

    def encode(self, texts: Sequence[TokenIds]) -> NDArray[np.float32]:
        """The vectors (B, D) of texts. Raises what `run` does."""
        items = [Item(ids) for ids in texts]
        return HEADS["vector"].unpack(self.run(items, "vector"), items)

    def begin(self, items: Sequence[Item], head: str) -> RunningPass:
        """Lay out the items and have the hardware begin; a GPU may still be busy at the return."""
        order = sorted(range(len(items)), key=lambda i: len(items[i]))
        sorted_items = [items[i] for i in order]
        types = [_types(item) for item in sorted_items] if self._inputs.pairs else None
        some = any(item.unseen for item in sorted_items)
        seen = [len(item) - item.unseen for item in sorted_items] if some else None
        batch = self._ops.batch([item.ids for item in sorted_items], types, seen)
        if head in self.heads:
            loaded = (self.heads[head],)
            rows = (loaded[0].forward(batch),)
        else:
            joint = self._joint(head)
            loaded, rows = joint.heads, joint.forward(batch)
        begun = tuple(map(self._ops.begin, rows))
        return RunningPass(loaded, sorted_items, order, batch, begun)

    def collect(self, running: RunningPass) -> list[bytes]:
        """Wait for a pass and return what `run` does; may be called on any thread."""
        items = running.items
        packed: list[list[bytes]] = []
        for (head, weights, _), begun in zip(running.heads, running.rows, strict=True):
            rows: Any = self._ops.to_numpy(begun)
            if head.PER == "token":
                rows = self._ops.split(rows, running.batch.layout)
            packed.append(head.pack(weights, rows[: len(items)], items))
        whole = packed[0] if len(packed) == 1 else map(sections.join, zip(*packed, strict=True))
        results = [b""] * len(items)
        for place, result in zip(running.order, whole, strict=True):
            results[place] = result
        return results

    def seconds(self, lengths: Sequence[int]) -> float:
        """How long a pass over texts of so many tokens takes, with the checkpoint's own head."""
        items = [_sample(length, self._inputs.longest) for length in lengths]
        began = time.perf_counter()
        self.run(items, next(iter(self.heads)))
        return time.perf_counter() - began

    def close(self) -> None:
        """Let go of the weights. It must run on the device; no pass can be run afterwards."""
        del self.heads, self._joined, self._backbone

    def _load(self, head: Head, own: Any) -> LoadedHead:
        backbone, read = self._backbone, head.reads(own)

        def forward(ops: Ops, batch: Batch) -> Array:
            batch = replace(batch, read=read)
            return head.forward(ops, own, backbone(ops, batch), batch)

        return LoadedHead(head, own, self._ops.compiled(forward))

    def _joint(self, head: str) -> JoinedHeads:
        """Several heads, whose pass is compiled when they are first asked for together."""
        found = self._joined.get(head)
        if found is not None:
            return found
        heads = tuple(self.heads[name] for name in parts_of(head))
        backbone = self._backbone

        def forward(ops: Ops, batch: Batch) -> tuple[Array, ...]:
            hidden = backbone(ops, batch)
            return tuple(each.head.forward(ops, each.weights, hidden, batch) for each in heads)

        joint = JoinedHeads(heads, self._ops.compiled(forward))
        return self._joined.setdefault(head, joint)  # another thread may have been sooner


def load_encoder(
    ops: Ops,
    checkpoint: Checkpoint,
    *,
    plan: Plan | None = None,
    on_read: Callable[[int], None] | None = None,
    stepwise: Stepwise = on_this_thread,
    tuned: Kept | None = None,
) -> Encoder:
    """The checkpoint on the device, tried with a few passes.

    `plan` is made anew if it is not given; `on_read` is called with the bytes of each tensor that
    was read; `stepwise` gives batches of other models their turns in between; `tuned` keeps what
    makes passes faster on this hardware.

    Raises `CheckpointError` that names what is missing, wrong or not supported, `DoesNotFit` if
    the device has less memory than the weights take.
    """
    began = time.perf_counter()
    plan = plan or make_plan(checkpoint, ops.dtype, backend=ops.name)
    _check_memory(ops, plan)
    encoder = Encoder(ops, plan, *_load_weights(ops, plan, on_read, stepwise))
    passes = stepwise(encoder)
    encoder.dimensions = _warm_up(passes, plan)
    loading = time.perf_counter() - began
    ops.tune(Tuning(passes.seconds, plan.digest, tuned, loading=loading))
    most = max(ops.pass_memory // plan.token_size, 1)
    encoder.max_batch_tokens = min(ops.max_batch_tokens, most)
    longest, most = plan.inputs.longest, encoder.max_batch_tokens
    encoder.cost = measure(passes.seconds, longest, most, prepares=ops.grid is not None)
    return encoder


def _check_memory(ops: Ops, plan: Plan) -> None:
    most = ops.memory - ops.pass_memory
    if plan.size > most:
        needed, there = (f"{size / 1e9:.3g} GB" for size in (plan.size, most))
        model = plan.checkpoint.card.id
        raise DoesNotFit(f"model `{model}` needs {needed}, and the device has {there} for weights")


def _load_weights(
    ops: Ops, plan: Plan, on_read: Callable[[int], None] | None, stepwise: Stepwise
) -> tuple[Backbone, dict[str, Any]]:
    """The weights of backbone and heads, on the device. Raises `CheckpointError`."""
    checkpoint, architecture = plan.checkpoint, plan.architecture
    tensors, steps = checkpoint.tensors(on_read), stepwise(ops)
    if architecture is fallback:  # uses MLX itself, so that all of it is one step
        weights = stepwise(architecture).prepare(ops, tensors, plan.config, plan.inputs)
    else:
        weights = architecture.prepare(steps, tensors, plan.config, plan.inputs)

    def backbone(ops: Ops, batch: Batch) -> Array:
        return architecture.forward(ops, weights, batch)

    heads = {name: HEADS[name].prepare(steps, tensors, checkpoint) for name in plan.heads}
    taken = [f"{s.name}." for s in checkpoint.steps if isinstance(s, Dense) and not s.own_folder]
    tensors.refuse_left_over((*architecture.UNUSED, *taken))
    return backbone, heads


def _warm_up(passes: Encoder, plan: Plan) -> int:
    """Run the first pass, with the own head, so that errors show at load and that head is compiled.

    Returns the dimensions of a vector. Raises `CheckpointError`.
    """
    own, sample = plan.heads[0], [_sample(2, plan.inputs.longest)]
    try:
        results = passes.run(sample, own)
    except (CheckpointError, EmbeddingFailed) as error:
        raise plan.checkpoint.error(str(error)) from None
    return HEADS[own].unpack(results, sample)[0].shape[-1] if own in ("vector", "tokens") else 0


def _sample(tokens: int, longest: int) -> Item:
    """A text of so many tokens, or of `longest` if those are fewer."""
    return Item(np.zeros(min(tokens, longest), dtype=np.int32))


def _types(item: Item) -> TokenIds:
    return np.zeros_like(item.ids) if item.types is None else item.types
