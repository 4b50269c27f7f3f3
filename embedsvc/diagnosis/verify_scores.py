"""Checks of a reranker or a classifier: whether it gives the scores that it should here."""

import importlib.util
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.quantization import read_quantization
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.diagnosis.verify import AKIN, FULL_LENGTH, Check, is_virtual
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.item import Item
from embedsvc.texts.pairs import PairOptions, tokenize_pairs
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.templated_pairs import tokenize_templated
from embedsvc.texts.tokenizer import open_tokenizer
from embedsvc.wording.plain import first_line

Scores = NDArray[np.float32]
PAIRS = [
    (text, other)
    for text in ("How do I reset my password?", "a cat on a mat")
    for other in (*TEXTS, "", "word " * FULL_LENGTH)
]
EXACT, VIRTUAL, ROUGH = 1e-4, 1e-3, 0.05
"""How far scores may be off, as a part of how far they are apart: in float32, in float32 on the GPU
of a virtual Mac, and in fewer bits."""


def verify_scores(
    ops: Ops, checkpoint: Checkpoint, original: Checkpoint | None = None
) -> Iterator[Check]:
    """The checks, each as soon as it is done; see `verify.verify`."""
    try:
        encoder = load_encoder(ops, checkpoint)
        items = _items(checkpoint, encoder)
        yield Check("loads", True, f"{_about(checkpoint)}, {ops.name} {ops.dtype}")
        alone = np.concatenate([_scores(encoder, [item]) for item in items])
        order: list[int] = np.random.default_rng(0).permutation(len(items)).tolist()
        together = _scores(encoder, [items[place] for place in order])
    except EmbeddingFailed as error:
        yield Check("finite", False, str(error))
        return
    lengths = sorted(map(len, items))
    yield Check("finite", True, f"{len(items)} pairs of {lengths[0]} to {lengths[-1]} tokens")
    bound = ROUGH if ops.dtype != "float32" else VIRTUAL if is_virtual(ops) else EXACT
    yield _near("alone = in a batch", together, alone[order], bound)
    if quantized := read_quantization(checkpoint.config).in_words():
        del encoder  # the original takes its place in memory
        ops.release()
        yield _cost(ops, quantized, alone, original)
    else:
        yield _against_reference(checkpoint, alone, bound)


def _about(checkpoint: Checkpoint) -> str:
    scoring = checkpoint.scoring
    labels = ", ".join(scoring.labels[:5]) if scoring else ""
    asked = " asked by a template," if checkpoint.pair_template else ""
    more = f" and {checkpoint.labels - 5} more" if checkpoint.labels > 5 else ""
    return f"{checkpoint.model_type},{asked} {checkpoint.max_tokens} tokens, scores {labels}{more}"


def scores_of(ops: Ops, checkpoint: Checkpoint) -> Scores:
    """The scores (n, labels) of `PAIRS`, each computed alone. Raises `CheckpointError`."""
    encoder = load_encoder(ops, checkpoint)
    return np.concatenate([_scores(encoder, [item]) for item in _items(checkpoint, encoder)])


def _items(checkpoint: Checkpoint, encoder: Encoder) -> list[Item]:
    tokenizer = open_tokenizer(checkpoint, encoder.rows)
    queries, documents = zip(*PAIRS, strict=True)
    template = checkpoint.pair_template
    if template is None:
        work = tokenize_pairs(tokenizer, queries, documents, PairOptions())
    else:
        prompt = checkpoint.default_prompt
        work = tokenize_templated(tokenizer, template, queries, documents, PairOptions(), prompt)
    return run_to_end(work).items


def _scores(encoder: Encoder, items: list[Item]) -> Scores:
    return HEADS["scores"].unpack(encoder.run(items, "scores"), items)


def _near(name: str, scores: Scores, reference: Scores, bound: float, by: str = "") -> Check:
    """How near scores come to those of a reference, and whether they put pairs in its order."""
    apart = float(np.ptp(reference)) or 1.0
    off = float(np.abs(scores - reference).max()) / apart
    orders = [np.argsort(each[:, 0]).tolist() for each in (scores, reference)]
    same = float(np.mean([mine == theirs for mine, theirs in zip(*orders, strict=True)]))
    found = f"off by {off:.1e} of their range at most, {same:.0%} of the order the same{by}"
    return Check(name, off <= bound, found)


def _cost(ops: Ops, quantized: str, scores: Scores, original: Checkpoint | None) -> Check:
    """How near the scores of quantised weights come to those of the original ones."""
    if original is None:
        return Check("quantised", None, f"{quantized}; --original MODEL tells what that costs")
    expected = scores_of(ops, original)
    name = original.card.id
    if expected.shape != scores.shape:
        found = f"{quantized}; `{name}` gives {expected.shape[1]} scores"
        return Check("quantised", False, found)
    correlation = float(np.corrcoef(scores.ravel(), expected.ravel())[0, 1])
    found = f"{quantized}; correlation with the scores of `{name}` {correlation:.4f}"
    return Check("quantised", correlation >= AKIN, found)


def _against_reference(checkpoint: Checkpoint, scores: Scores, bound: float) -> Check:
    """Compare with sentence-transformers if it is installed."""
    name = "equals sentence-transformers"
    if checkpoint.adapter is not None:
        return Check(name, None, "it is not asked about models with an adapter")
    if importlib.util.find_spec("sentence_transformers") is None:
        return Check(name, None, "it is not installed")
    try:
        reference = _sentence_transformers(checkpoint)
    except Exception as error:  # noqa: BLE001 - whatever another library raises on a checkpoint
        return Check(name, None, f"it cannot load the model: {first_line(error)}")
    if reference.shape != scores.shape:
        return Check(name, False, f"it gives {reference.shape[1]} scores")
    return _near(name, scores, reference, bound, ", by the one installed")


def _sentence_transformers(checkpoint: Checkpoint) -> Scores:
    library, torch = import_module("sentence_transformers"), import_module("torch")
    model: Any = library.CrossEncoder(
        str(checkpoint.root),
        device="cpu",
        local_files_only=True,
        max_length=checkpoint.max_tokens,
    )
    scores = model.float().predict(PAIRS, activation_fn=torch.nn.Identity(), batch_size=1)
    return np.asarray(scores, np.float32).reshape(len(PAIRS), -1)
