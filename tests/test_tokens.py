"""Late-interaction models: vectors of tokens and MaxSim as sentence-transformers has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.heads.tokens import Weights, pack, unpack
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.inputs import InputOptions
from embedsvc.texts.item import Item
from embedsvc.texts.roles import Role, open_roles
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import open_tokenizer
from embedsvc.texts.truncation import Rule
from tests.support.colbert import COLBERTS, DOCUMENTS, QUERIES
from tests.support.tolerance import within

RECORDED = Path(__file__).parent / "reference" / "colbert"


def items_of(checkpoint: Checkpoint, texts: Sequence[str], role: Role, **more: Any) -> list[Item]:
    roles = open_roles(checkpoint, open_tokenizer(checkpoint, None))
    options = InputOptions(checkpoint.prompts.get(role, ""), Rule("end"))
    return run_to_end(roles.tokenize(list(texts), options, role, **more)).items


@pytest.mark.parametrize("name", COLBERTS)
def test_vectors_of_tokens_equal_the_reference_alone_and_together(
    ops: Ops, name: str, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(Card(id=name, path=COLBERTS[name].write(tmp_path)))
    encoder, head = load_encoder(ops, checkpoint), HEADS["tokens"]
    items = items_of(checkpoint, QUERIES, "query") + items_of(checkpoint, DOCUMENTS, "document")
    together = head.unpack(encoder.run(items, "tokens"), items)
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as arrays:
        expected = [arrays[f"q{i}"] for i in range(len(QUERIES))]
        expected += [arrays[f"d{i}"] for i in range(len(DOCUMENTS))]
    assert encoder.dimensions == expected[0].shape[1]
    for item, found, right in zip(items, together, expected, strict=True):
        (alone,) = head.unpack(encoder.run([item], "tokens"), [item])
        assert found.shape == alone.shape == right.shape
        assert np.abs(found - right).max() <= within(1e-5, ops)
        assert np.abs(alone - right).max() <= within(1e-5, ops)


@pytest.mark.parametrize("name", COLBERTS)
def test_scores_equal_the_reference_also_with_documents_in_float16(
    ops: Ops, name: str, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(Card(id=name, path=COLBERTS[name].write(tmp_path)))
    encoder, head = load_encoder(ops, checkpoint), HEADS["tokens"]
    queries = items_of(checkpoint, QUERIES, "query")
    documents = items_of(checkpoint, DOCUMENTS, "document", half=True)
    first = head.unpack(encoder.run(queries, "tokens"), queries)
    second = head.unpack(encoder.run(documents, "tokens"), documents)
    assert {each.dtype for each in second} == {np.dtype(np.float16)}
    found = np.stack([ops.maxsim(query, second) for query in first])
    if checkpoint.late and checkpoint.late.mean:
        found /= np.array([[len(query)] for query in first])
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as arrays:
        expected = arrays["scores"]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    for row, right in zip(found, expected, strict=True):
        apart = right[:, None] - right > 1e-3 * np.abs(expected).max()
        assert apart.any()
        assert (row[:, None] > row)[apart].all()


@pytest.mark.parametrize("largest", [60_000, 70_000])
def test_numbers_too_large_for_float16_are_refused_where_that_is_wanted(largest: int) -> None:
    weights = Weights((), (), normalize=False)
    rows = [np.array([[1, 2]], np.float32), np.array([[1, -largest]], np.float32)]
    ids = np.array([5], np.int32)
    pack(weights, rows, [Item(ids, half=True), Item(ids)])
    both = [Item(ids), Item(ids, half=True)]
    if largest < float(np.finfo(np.float16).max):
        (_, found) = unpack(pack(weights, rows, both), both)
        assert np.isfinite(found).all()
    else:
        with pytest.raises(EmbeddingFailed, match="too large for float16"):
            pack(weights, rows, both)
