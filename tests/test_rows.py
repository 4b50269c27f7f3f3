"""Tokens that a model has no vector for: the load says so, or they are read as ordinary text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.cli import main
from embedsvc.errors import BadRequest, CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.plan import make_plan
from embedsvc.texts import tokenizer as texts
from embedsvc.texts.inputs import InputOptions, tokenize
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import open_tokenizer
from tests.support.checkpoints import WORDS, write_bert, write_json, write_modules
from tests.support.tiny import CASES

EXTRA = len(WORDS)
"""The id that a token gets which is added."""


def read(folder: Path, **card: Any) -> texts.Tokenizer:
    checkpoint = open_checkpoint(Card(id="x", path=folder, **card))
    return open_tokenizer(checkpoint, make_plan(checkpoint, "float32", backend="numpy").rows)


def edit(folder: Path, change: Any) -> None:
    """Change tokenizer.json."""
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    change(whole)
    write_json(file, whole)


def add_inside(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<extra>")])
    tokenizer.save(str(folder / "tokenizer.json"))


def add_by_number(folder: Path) -> None:
    numbered = {str(EXTRA): {"content": "<extra>", "special": False}}
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": numbered})


ADDING = {
    "tokenizer.json": add_inside,
    "tokenizer_config.json": add_by_number,
    "added_tokens.json": lambda folder: write_json(
        folder / "added_tokens.json", {"<extra>": EXTRA}
    ),
    "special_tokens_map.json": lambda folder: write_json(
        folder / "special_tokens_map.json", {"additional_special_tokens": ["<extra>"]}
    ),
}


@pytest.mark.parametrize("file", ADDING)
def test_an_added_token_without_a_row_is_refused_by_file_token_and_both_numbers(
    tmp_path: Path, file: str
) -> None:
    write_bert(tmp_path)
    ADDING[file](tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    said = str(caught.value)
    assert f"{tmp_path / file}: token `<extra>` has id {EXTRA}, and the model has vectors" in said
    assert f"for {EXTRA} tokens" in said
    assert 'give the card `plain_tokens = ["<extra>"]`' in said


def test_verify_fails_where_the_load_does_and_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bert(tmp_path)
    add_inside(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert main(["verify", str(tmp_path), "--backend", "numpy"]) == 4
    printed = capsys.readouterr()
    assert "is right" not in printed.out
    assert "is sound" not in printed.out
    assert str(caught.value).partition(": ")[2] in printed.err


@pytest.mark.parametrize("file", ADDING)
def test_a_card_may_have_such_a_token_read_as_ordinary_text(tmp_path: Path, file: str) -> None:
    write_bert(tmp_path)
    plain = read(tmp_path).encode(["a <extra> b"])[0]
    ADDING[file](tmp_path)
    tokenizer = read(tmp_path, plain_tokens=("<extra>",))
    assert tokenizer.encode(["a <extra> b"])[0].tolist() == plain.tolist()
    assert tokenizer.vocabulary == EXTRA


def test_a_token_with_a_row_keeps_it_whatever_the_card_says(tmp_path: Path) -> None:
    write_bert(tmp_path, vocab_size=EXTRA + 8)  # tables are often larger than vocabularies
    add_inside(tmp_path)
    assert EXTRA in read(tmp_path).encode(["a <extra> b"])[0]
    assert EXTRA in read(tmp_path, plain_tokens=("<extra>",)).encode(["a <extra> b"])[0]


def test_what_is_read_as_text_changes_the_fingerprint(tmp_path: Path) -> None:
    write_bert(tmp_path)
    one, two = (
        open_checkpoint(Card(id="x", path=tmp_path, plain_tokens=plain)).fingerprint()
        for plain in ((), ("<extra>",))
    )
    assert one != two


def test_a_word_of_the_vocabulary_without_a_row_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    edit(tmp_path, lambda whole: whole["model"]["vocab"].update(hello=10**9))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: token `hello` has id 1000000000"):
        read(tmp_path)


def test_an_id_put_around_every_text_is_held_against_the_table(tmp_path: Path) -> None:
    write_bert(tmp_path)

    def change(whole: dict[str, Any]) -> None:
        whole["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [EXTRA + 5]

    edit(tmp_path, change)
    with pytest.raises(CheckpointError, match=rf"has id {EXTRA + 5}, and the model has vectors"):
        read(tmp_path)


def test_many_tokens_without_a_row_are_counted(tmp_path: Path) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "added_tokens.json", {f"<{i}>": EXTRA + i for i in range(500)})
    with pytest.raises(CheckpointError, match=r"`<0>` has id 32.*\(500 such\).*do not belong"):
        read(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_every_architecture_knows_its_rows(tmp_path: Path, name: str) -> None:
    checkpoint = open_checkpoint(Card(id="x", path=CASES[name].write(tmp_path)))
    rows = make_plan(checkpoint, "float32", backend="numpy").rows
    tables = [shape for tensor, shape in CASES[name].shapes.items() if tensor.endswith("mapping")]
    tables = tables or [
        shape
        for tensor, shape in CASES[name].shapes.items()
        if tensor.endswith(("word_embeddings.weight", "tok_embeddings.weight"))
        or tensor in ("embed_tokens.weight", "embedding.weight", "embeddings")
    ]
    assert [shape[0] for shape in tables] == [rows]


def test_ids_of_a_client_are_held_against_the_table(tmp_path: Path) -> None:
    write_bert(tmp_path)
    tokenizer = read(tmp_path)
    options = InputOptions(token_ids="model")
    assert len(run_to_end(tokenize(tokenizer, [[EXTRA - 1]], options)).items) == 1
    for wrong in (EXTRA, -1, 2**31, 2**63 - 1):
        with pytest.raises(BadRequest, match=f"{wrong} is not a token id of this model"):
            run_to_end(tokenize(tokenizer, [[wrong]], options))


def test_static_embeddings_go_by_tokenizer_json_alone(tmp_path: Path) -> None:
    """As their libraries do: tokens that other files name have no row and are never made."""
    CASES["static"].write(tmp_path)
    write_json(tmp_path / "config.json", {})
    modules = [{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]
    write_json(tmp_path / "modules.json", modules)
    write_json(tmp_path / "tokenizer_config.json", {"mask_token": "[MASK]"})
    tokenizer = read(tmp_path)
    assert tokenizer.vocabulary == len(WORDS)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"mapping": np.full(32, -1)}, "`mapping` names rows that are not among the"),
        ({"mapping": np.full(32, 10**6)}, "`mapping` names rows that are not among the"),
        ({"mapping": np.zeros(32, "f4")}, "`mapping` must be a row of whole numbers"),
        ({"mapping": np.zeros((), "i8")}, "`mapping` must be a row of whole numbers"),
        ({"embeddings": np.zeros(16, "f4")}, r"`embeddings` has shape \(16,\), and must be"),
        ({"embeddings": np.zeros((0, 4), "f4")}, r"`embeddings` has shape \(0, 4\), and must be"),
        ({"weights": np.ones(3, "f4")}, r"`weights` has shape \(3,\), not"),
    ],
)
def test_rows_that_tokens_share_are_held_against_the_table(
    ops: Ops, tmp_path: Path, tensors: dict[str, Any], said: str
) -> None:
    file = CASES["model2vec"].write(tmp_path) / "model.safetensors"
    save_file(load_file(file) | tensors, file)
    with pytest.raises(CheckpointError, match=said):
        load_encoder(ops, open_checkpoint(Card(id="x", path=tmp_path)))


def test_a_pattern_that_would_be_tried_for_ever_is_refused_when_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    """The library panics, which no `except Exception` sees; what it says is said of the file."""
    write_bert(tmp_path)
    pattern = {"Regex": r"(\w+\s*\w*)+\d$"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    edit(tmp_path, lambda whole: whole.update(pre_tokenizer=split))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*retry-limit-in-match over"):
        read(tmp_path)


def test_what_a_message_takes_from_files_is_one_line_of_bounded_length(tmp_path: Path) -> None:
    write_bert(tmp_path)
    added = {"\x1b[2J\n" * 20_000: EXTRA}
    write_json(tmp_path / "added_tokens.json", added)
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 2000
    assert str(tmp_path / "added_tokens.json") in said


@pytest.mark.parametrize("kind", ["Dense", "LayerNorm"])
def test_modules_that_do_not_fit_one_another_are_refused_by_name(
    ops: Ops, tmp_path: Path, kind: str
) -> None:
    config = {"in_features": 24, "out_features": 4} if kind == "Dense" else {"dimension": 24}
    write_bert(tmp_path)
    write_modules(tmp_path, ("Pooling", {"pooling_mode": "mean"}), (kind, config))
    key = next(iter(config))
    said = rf"2_{kind}: `{key}` is 24, and vectors have 16 dimensions there"
    with pytest.raises(CheckpointError, match=said):
        load_encoder(ops, open_checkpoint(Card(id="x", path=tmp_path)))
