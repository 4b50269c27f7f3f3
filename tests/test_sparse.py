"""Sparse vectors: what the heads give, and which checkpoints have them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.sparse import query_weights
from embedsvc.errors import CheckpointError, EmbeddingFailed
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS, heads_of, joined, masked_lm, parts_of, sections
from embedsvc.inference.heads.sparse_vector import SparseVector, merged, pruned, sparse_of
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.serving.embedded import assemble
from embedsvc.texts.inputs import Tokenized
from embedsvc.texts.item import Item
from tests.support.checkpoints import write_json, write_modules
from tests.support.shapes import VOCABULARY
from tests.support.sparse_models import QUERIES, SPARSE_CASES, dense, recorded, write_m3
from tests.support.tiny import CASES
from tests.support.tolerance import within


@pytest.mark.parametrize("name", SPARSE_CASES)
def test_weights_equal_the_reference_alone_and_together(
    ops: Ops, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "BLOCK", 16)  # so that there are several
    case = SPARSE_CASES[name]
    checkpoint = open_checkpoint(Card(id=name, path=case.write(tmp_path)))
    expected = recorded(name)["weights"]
    encoder, items = load_encoder(ops, checkpoint), [*map(Item, case.texts())]
    together = HEADS["sparse"].unpack(encoder.run(items, "sparse"), items)
    alone = [vector for item in items for vector in HEADS["sparse"].unpack(
        encoder.run([item], "sparse"), [item])]  # fmt: skip
    assert (checkpoint.task, checkpoint.pooling, encoder.dimensions) == ("sparse", (), 0)
    for vectors in (together, alone):
        found = dense(vectors, VOCABULARY)
        assert np.abs(found - expected).max() <= within(1e-4, ops)
        clear = np.abs(expected) > 1e-4  # what is nearer to 0 may be on either side of it
        assert ((found > 0) == (expected > 0))[clear | (expected == 0)].all()
        assert all((np.diff(vector.indices) > 0).all() for vector in vectors)


@pytest.mark.parametrize("name", [name for name, case in SPARSE_CASES.items() if case.router])
def test_queries_of_a_router_have_the_weights_of_their_tokens(name: str, tmp_path: Path) -> None:
    case = SPARSE_CASES[name]
    checkpoint = open_checkpoint(Card(id=name, path=case.write(tmp_path)))
    assert checkpoint.sparse is not None
    weights = query_weights(checkpoint.sparse, name, case.words().get, VOCABULARY)
    expected = case.query_weights()
    assert weights[: len(expected)].tolist() == expected.tolist()
    assert recorded(name)["queries"].shape == (len(QUERIES), len(expected))


def test_a_masked_lm_without_modules_is_splade_if_its_card_says_so(
    ops: Ops, tmp_path: Path
) -> None:
    case = SPARSE_CASES["bert-splade"]
    case.write(tmp_path)
    (tmp_path / "modules.json").unlink()
    with pytest.raises(CheckpointError, match="how to pool"):
        open_checkpoint(Card(id="m", path=tmp_path))
    checkpoint = open_checkpoint(Card(id="m", path=tmp_path, task="sparse"))
    items = [*map(Item, case.texts())]
    found = HEADS["sparse"].unpack(load_encoder(ops, checkpoint).run(items, "sparse"), items)
    expected = recorded("bert-splade")["weights"]
    assert np.abs(dense(found, VOCABULARY) - expected).max() <= within(1e-4, ops)


# --- BGE-M3's ------------------------------------------------------------------------------------


def test_lexical_weights_are_the_largest_of_each_token(ops: Ops, tmp_path: Path) -> None:
    layer = write_m3(tmp_path, bias=0.25)
    checkpoint = open_checkpoint(Card(id="m3", path=tmp_path))
    encoder = load_encoder(ops, checkpoint)
    assert tuple(encoder.heads) == ("vector", "spans", "lexical")
    texts = [*CASES["xlm-roberta"].texts(), np.array([2, 7, 9, 7, 1, 3], np.int32)]
    whole = [Item(ids, spans=tuple((n, n + 1) for n in range(len(ids)))) for ids in texts]
    states = load_encoder(
        ops, open_checkpoint(Card(id="h", path=tmp_path, pooling="mean", normalize=False))
    )
    found = HEADS["lexical"].unpack(encoder.run(whole, "lexical"), whole)
    for item, vector in zip(whole, found, strict=True):
        hidden = HEADS["spans"].unpack(states.run([item], "spans"), [item])  # (L, D)
        weights = np.maximum(hidden @ layer["weight"][0] + layer["bias"], 0)
        expected: dict[int, float] = {}
        for token, weight in zip(item.ids.tolist(), weights.tolist(), strict=True):
            if token not in (0, 1, 2, 3) and weight > 0:
                expected[token] = max(weight, expected.get(token, 0))
        assert vector.indices.tolist() == sorted(expected)
        values = [expected[token] for token in sorted(expected)]
        np.testing.assert_allclose(vector.values, values, atol=within(1e-4, ops))


def test_one_pass_gives_vectors_and_weights_as_each_head_alone(ops: Ops, tmp_path: Path) -> None:
    write_m3(tmp_path)
    encoder = load_encoder(ops, open_checkpoint(Card(id="m3", path=tmp_path)))
    items = [*map(Item, CASES["xlm-roberta"].texts())]
    both = joined(["vector", "lexical"])
    for result, item in zip(encoder.run(items, both), items, strict=True):
        parts = dict(zip(parts_of(both), sections.split(result, 2), strict=True))
        alone = {head: HEADS[head].unpack(encoder.run([item], head), [item]) for head in parts}
        vector = HEADS["vector"].unpack([parts["vector"]], [item])
        assert np.abs(vector - alone["vector"]).max() <= within(1e-5, ops)
        (weights,) = HEADS["lexical"].unpack([parts["lexical"]], [item])
        (expected,) = alone["lexical"]
        np.testing.assert_array_equal(weights.indices, expected.indices)
        np.testing.assert_allclose(weights.values, expected.values, atol=within(1e-4, ops))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["pooling_strategy", "activation_function"])
def test_a_pooling_that_is_not_supported_is_named(tmp_path: Path, key: str) -> None:
    SPARSE_CASES["bert-splade"].write(tmp_path)
    write_json(tmp_path / "1_SpladePooling" / "config.json", {key: "mean"})
    with pytest.raises(CheckpointError, match=f"`{key}` of 'mean' is not supported"):
        open_checkpoint(Card(id="m", path=tmp_path))


def test_a_model_whose_masked_lm_is_not_known_is_named(tmp_path: Path) -> None:
    case = SPARSE_CASES["bert-splade"]
    case.write(tmp_path)
    for change, message in (
        ({"model_type": "nomic_bert"}, "sparse vectors of model_type `nomic_bert`"),
        ({"hidden_act": "gelu_x"}, "`hidden_act` of `gelu_x`"),
    ):
        write_json(tmp_path / "config.json", case.config | change)
        with pytest.raises(CheckpointError, match=message):
            heads_of(open_checkpoint(Card(id="m", path=tmp_path)))


def test_other_modules_and_routes_are_refused(tmp_path: Path) -> None:
    write_modules(tmp_path / "a", ("SpladePooling", {}), ("Normalize", {}))
    with pytest.raises(CheckpointError, match=r"Transformer . SpladePooling . Normalize"):
        open_checkpoint(Card(id="m", path=tmp_path / "a"))
    case = SPARSE_CASES["bert-routed"]
    case.write(tmp_path / "b")
    write_json(tmp_path / "b" / "router_config.json", {"types": {}, "structure": {}})
    with pytest.raises(CheckpointError, match="no modules for the route `query`"):
        open_checkpoint(Card(id="m", path=tmp_path / "b"))


@pytest.mark.parametrize("name", ["cls.predictions.bias", "cls.predictions.transform.dense.weight"])
def test_a_tensor_of_the_head_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    case = SPARSE_CASES["bert-splade"]
    without = {key: shape for key, shape in case.shapes.items() if key != name}
    type(case)(case.config, without).write(tmp_path)
    with pytest.raises(CheckpointError, match=f"tensor `{name}` is missing"):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="m", path=tmp_path)))


def test_weights_that_are_not_finite_fail_the_text(tmp_path: Path) -> None:
    write_m3(tmp_path, bias=float("inf"))
    encoder = load_encoder(NumpyOps(), open_checkpoint(Card(id="m3", path=tmp_path)))
    with pytest.raises(EmbeddingFailed, match="no finite weights"):
        encoder.run([Item(np.array([5], np.int32))], "lexical")


# --- vectors -------------------------------------------------------------------------------------


def test_parts_of_a_text_are_merged_by_their_largest_weights() -> None:
    first, second = (np.array(weights, np.float32) for weights in ([0, 1, 4, 0], [3, 2, 1, 0]))
    found = merged([sparse_of(first), sparse_of(second)])
    assert dict(zip(found.indices.tolist(), found.values.tolist(), strict=True)) == {
        0: 3.0,
        1: 2.0,
        2: 4.0,
    }
    empty = sparse_of(np.zeros(3, np.float32))
    assert len(merged([empty, empty]).indices) == 0


def test_pruning_keeps_the_largest_weights_in_the_order_of_their_ids() -> None:
    vector = sparse_of(np.array([1, 3, 0, 2, 3, 1], np.float32))
    assert pruned(vector, 3, 0).indices.tolist() == [1, 3, 4]
    assert pruned(vector, 1, 0).indices.tolist() == [1]
    assert pruned(vector, None, 2.5).values.tolist() == [3, 3]
    assert len(pruned(vector, None, 4).indices) == 0


@pytest.mark.parametrize("most", [1, 7, 50, 199, 200])
def test_pruning_keeps_what_sorting_all_weights_does(
    most: int, random: np.random.Generator
) -> None:
    vector = sparse_of(random.integers(1, 9, 200).astype(np.float32))
    kept = sorted(sorted(range(200), key=lambda i: (-vector.values[i], i))[:most])
    found = pruned(vector, most, 0)
    assert found.indices.tolist() == kept
    assert found.values.tolist() == vector.values[kept].tolist()


def test_parts_are_merged_while_the_event_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_the_loop(parts: Sequence[SparseVector]) -> SparseVector:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return merged(parts)

    monkeypatch.setattr("embedsvc.serving.embedded.merged", off_the_loop)
    vectors = [sparse_of(np.array(weights, np.float32)) for weights in ([0, 1], [2, 3], [4, 0])]
    tokenized = Tokenized([Item(np.array([5], np.int32))] * 3, [2, 1], [False, False])
    work = assemble({"sparse": vectors}, tokenized, normalize=False, token_name=str)
    first, second = asyncio.run(work).sparse or []
    assert (first.values.tolist(), second.values.tolist()) == ([2, 3], [4])
