"""No index reaches a table that has no row for it, on any backend: it is refused, by name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.models import fallback
from embedsvc.inference.ops.base import Attention, Batch, Ops, rope_table
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.texts.item import Item
from tests.support.checkpoints import write_bert
from tests.support.tolerance import within

ROWS = 7
LOOKS_UP = ("positions", "rope", "bias")


def ids(*values: int) -> Any:
    return np.array(values, dtype=np.int32)


def looking_up(ops: Ops, positions: str | None = None) -> Any:
    """A pass with a table of 7 words, and one of 7 positions of that kind."""
    random = np.random.default_rng(5)
    words, places = (ops.array(random.normal(size=(ROWS, 4))) for _ in range(2))
    turns = ops.float32(rope_table(4, 100.0, ROWS))
    bias = ops.array(random.normal(size=(1, 2 * ROWS - 1)))
    spec = Attention(1, 1, bias=bias if positions == "bias" else None)

    def function(ops: Ops, batch: Batch) -> Any:
        def embed(ids: Any, at: Any) -> Any:
            hidden = ops.embedding(words, ids)
            if positions == "positions":
                hidden = ops.add(hidden, ops.embedding(places, at))
            return ops.rope(hidden, turns, at) if positions == "rope" else hidden

        hidden = ops.rows(embed, batch.ids, batch.positions)
        q, k, v = (ops.copy(hidden) for _ in range(3))
        return ops.pool(ops.attention(q, k, v, spec, batch.layout), batch.layout, ["mean"])

    return ops.compiled(function)


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("bad", [ROWS, 2**31 - 1, -1, -(2**31)])
def test_an_id_that_has_no_row_is_refused_by_name(ops: Ops, bad: int, first: bool) -> None:
    run = looking_up(ops)
    good = [ids(0, ROWS - 1), ids(3)]
    if not first:
        run(ops.batch(good))
    for texts in ([ids(bad)], [ids(0, bad, 1)], [ids(1), ids(2, 3, bad)]):
        with pytest.raises(EmbeddingFailed, match=rf"no token {bad}: its table has {ROWS}, from 0"):
            ops.to_numpy(run(ops.batch(texts)))
    assert np.isfinite(ops.to_numpy(run(ops.batch(good)))).all()


@pytest.mark.parametrize("positions", [None, "positions", "rope"])
def test_a_first_pass_in_parts_of_two_rows_is_checked_as_well(
    monkeypatch: pytest.MonkeyPatch, ops: Ops, positions: str | None
) -> None:
    monkeypatch.setattr("embedsvc.inference.ops.numpy.ROWS", 2)
    monkeypatch.setattr("embedsvc.inference.ops.mlx.dispatch.MOST_OPERATIONS", 2)
    with pytest.raises(EmbeddingFailed, match=f"no token {ROWS}"):
        ops.to_numpy(looking_up(ops, positions)(ops.batch([ids(0, 1, 2, 3, ROWS)])))
    if positions is not None:
        with pytest.raises(EmbeddingFailed, match="A text of 9 tokens is longer"):
            ops.to_numpy(looking_up(ops, positions)(ops.batch([np.ones(9, np.int32)])))


def test_no_part_of_a_first_pass_is_begun_before_it_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ops, begun = MlxOps("float32"), list[mx.array]()
    monkeypatch.setattr("embedsvc.inference.ops.mlx.dispatch.MOST_OPERATIONS", 1 << 16)
    monkeypatch.setattr(mx, "async_eval", begun.append)
    with pytest.raises(EmbeddingFailed, match="A text of 300 tokens is longer"):
        looking_up(ops, "positions")(ops.batch([np.ones(300, np.int32)]))
    with pytest.raises(EmbeddingFailed, match="no token 9"):
        looking_up(ops)(ops.batch([np.full(300, 9, np.int32)]))
    assert not begun
    looking_up(ops)(ops.batch([np.ones(300, np.int32)]))
    assert len(begun) > 1


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("positions", LOOKS_UP)
def test_a_text_longer_than_the_table_of_positions_is_refused_by_name(
    ops: Ops, positions: str, first: bool
) -> None:
    run = looking_up(ops, positions)
    good = [ids(*range(ROWS)), ids(1)]
    if not first:
        run(ops.batch(good))
    for long in (ROWS + 1, 300):
        texts = [ids(1), np.ones(long, np.int32)]
        with pytest.raises(
            EmbeddingFailed, match=rf"A text of {long} tokens is longer .* {ROWS} pos"
        ):
            ops.to_numpy(run(ops.batch(texts)))
    assert np.isfinite(ops.to_numpy(run(ops.batch(good)))).all()


def test_a_compiled_pass_on_mlx_is_checked_as_well() -> None:
    ops = MlxOps("float32")
    ops.compile = True
    run = looking_up(ops, "positions")
    run(ops.batch([ids(1)]))
    for texts in ([ids(ROWS)], [ids(-1)], [np.ones(ROWS + 1, np.int32)]):
        with pytest.raises(EmbeddingFailed):
            run(ops.batch(texts))


def test_ids_for_a_model_of_mlx_embeddings_are_checked_against_its_config() -> None:
    given: list[list[int]] = []

    def model(ids: Any, mask: Any) -> Any:
        given.append(ids.shape)
        return SimpleNamespace(last_hidden_state=mx.ones((*ids.shape, 4)))

    def function(ops: Ops, batch: Batch) -> Any:
        weights = fallback.Weights(model, vocabulary=ROWS, positions=5)
        return ops.pool(fallback.forward(ops, weights, batch), batch.layout, ["mean"])

    ops = MlxOps("float32")
    run = ops.compiled(function)
    for _ in range(2):
        assert ops.to_numpy(run(ops.batch([ids(ROWS - 1)])))[0].tolist() == [1, 1, 1, 1]
        with pytest.raises(EmbeddingFailed, match=f"no token {ROWS}"):
            run(ops.batch([ids(ROWS)]))
        with pytest.raises(EmbeddingFailed, match="6 tokens"):
            run(ops.batch([ids(0, 0, 0, 0, 0, 0)]))
    assert len(given) == 2, "what is refused has not reached the model"


def test_a_table_that_is_looked_up_by_other_means_counts(
    ops: Ops, random: np.random.Generator
) -> None:
    words = ops.array(random.normal(size=(ROWS, 4)))

    def function(ops: Ops, batch: Batch) -> Any:
        ops.looked_up(3, batch.ids)
        ops.looked_up(2, batch.positions)
        return ops.embedding(words, batch.ids)

    run = ops.compiled(function)
    run(ops.batch([ids(2, 2)]))
    with pytest.raises(EmbeddingFailed, match="no token 3: its table has 3"):
        run(ops.batch([ids(3)]))
    with pytest.raises(EmbeddingFailed, match=r"3 tokens .* 2 positions"):
        run(ops.batch([ids(0, 0, 0)]))


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [np.zeros(0, np.int32)],
        [ids(1), np.zeros(0, np.int32)],
        [np.zeros(2, np.int64)],
        [np.zeros(2, np.float32)],
        [np.zeros((2, 2), np.int32)],
        [np.zeros(2, ">i4")],
    ],
    ids=["none", "empty", "one empty", "int64", "floats", "two-dimensional", "big-endian"],
)
def test_what_is_no_batch_of_texts_is_refused(ops: Ops, texts: list[Any]) -> None:
    with pytest.raises(ValueError, match="batch"):
        ops.batch(texts)


def test_ids_that_are_every_other_one_of_an_array_are_read_as_they_are(ops: Ops) -> None:
    run = looking_up(ops, "positions")
    spread = np.arange(ROWS, dtype=np.int32)[::2]
    unaligned = np.frombuffer(b"x" + spread.tobytes(), np.uint8)[1:].view(np.int32)
    expected = ops.to_numpy(run(ops.batch([spread.copy()])))
    for texts in ([spread], [spread[::-1][::-1]], [unaligned]):
        batch = ops.batch(texts)
        assert np.array_equal(ops.to_numpy(run(batch)), expected)
        assert ops.grid or batch.ids.flags.carray


@pytest.mark.parametrize("chosen", [-1, 0, 4])
def test_more_experts_than_there_are_cannot_be_chosen(
    ops: Ops, chosen: int, random: np.random.Generator
) -> None:
    layer = ops.experts_layer(random.normal(size=(3, 5, 4)), random.normal(size=(3, 4, 5)))
    x, scores = ops.array(np.ones((2, 4))), ops.array(np.ones((2, 3)))
    with pytest.raises(ValueError, match=f"{chosen} of 3 experts"):
        ops.experts(x, scores, chosen, layer)
    with pytest.raises(ValueError, match="by 4 scores"):
        ops.experts(x, ops.array(np.ones((2, 4))), 1, layer)


def test_an_encoder_refuses_a_text_by_name_and_goes_on(ops: Ops, tiny: Checkpoint) -> None:
    encoder = load_encoder(ops, tiny)
    good = encoder.encode([ids(1, 2, 3)])
    vocabulary = tiny.config["vocab_size"]
    for bad in (-1, vocabulary, 2**31 - 1):
        with pytest.raises(EmbeddingFailed, match=f"no token {bad}"):
            encoder.encode([ids(1, 2, 3), ids(5, bad)])
    with pytest.raises(EmbeddingFailed, match="positions"):
        encoder.encode([np.ones(tiny.config["max_position_embeddings"] + 1, np.int32)])
    assert np.array_equal(encoder.encode([ids(1, 2, 3)]), good)


def test_a_model_of_one_position_loads_and_computes(ops: Ops, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "one", max_position_embeddings=1)
    encoder = load_encoder(ops, open_checkpoint(Card(id="one", path=folder, max_tokens=1)))
    assert encoder.encode([ids(3)]).shape == (1, encoder.dimensions)


@pytest.mark.parametrize("spans", [(), ((0, 4),), ((0, 1), (2, 2)), ((-1, 2),), ((2, 1),)], ids=str)
def test_spans_that_are_no_part_of_their_text_are_refused(
    ops: Ops, tiny: Checkpoint, spans: tuple[tuple[int, int], ...]
) -> None:
    encoder = load_encoder(ops, tiny)
    with pytest.raises(EmbeddingFailed, match="no part of the 3 tokens"):
        encoder.run([Item(ids(1, 2, 3), spans=spans)], "spans")
    (whole,) = encoder.run([Item(ids(1, 2, 3), spans=((0, 3),))], "spans")
    vector = encoder.encode([ids(1, 2, 3)])
    assert np.abs(np.frombuffer(whole, "<f4") - vector).max() <= within(1e-6, ops)
