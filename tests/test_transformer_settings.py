"""All that sentence-transformers reads beside the weights, against vectors recorded from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.transformer_settings import FILES
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.tokenizer import open_tokenizer
from tests.support.app import serve
from tests.support.checkpoints import write_bert, write_json
from tests.support.settings_cases import CASES, NAMES, TEXTS, write
from tests.support.tolerance import within

RECORD = json.loads((Path(__file__).parent / "reference" / "settings.json").read_text())


def encode(ops: Ops, folder: Path) -> np.ndarray:
    """Vectors of the texts, each cut to the limit, behind the prompt that is put before them."""
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    encoder = load_encoder(ops, checkpoint)
    texts = [checkpoint.default_prompt + text for text in TEXTS]
    tokens = open_tokenizer(checkpoint, encoder.rows).encode(texts)
    most = checkpoint.max_tokens
    cut = [ids if len(ids) <= most else np.r_[ids[: most - 1], ids[-1:]] for ids in tokens]
    return encoder.encode([ids.astype(np.int32) for ids in cut])


@pytest.mark.parametrize("name", CASES)
def test_vectors_equal_sentence_transformers(ops: Ops, tmp_path: Path, name: str) -> None:
    found, recorded = encode(ops, write(tmp_path, CASES[name])), np.array(RECORD["vectors"][name])
    assert found.shape == recorded.shape
    assert np.abs(found - recorded).max() <= within(1e-5, ops)


def test_the_cases_tell_settings_apart() -> None:
    vectors = {name: np.array(rows) for name, rows in RECORD["vectors"].items()}
    told = ("lower", "first name", "tokenizer_args", "default prompt", "pooling as a string")
    for name in (*told, *(f"sentence_{each}_config" for each in NAMES)):
        assert np.abs(vectors[name] - vectors["none"]).max() > 1e-2, name
    assert {f"sentence_{name}_config.json" for name in NAMES} == set(FILES)


def test_what_sentence_transformers_saves_today_is_read_as_it_reads_it(
    ops: Ops, tmp_path: Path
) -> None:
    saved = RECORD["saved"]
    write(tmp_path, {})
    for file in (*FILES, "1_Pooling/config.json"):
        (tmp_path / file).unlink(missing_ok=True)
    for file, content in saved["files"].items():
        write_json(tmp_path / file, content)
    for folder, content in saved["weights"].items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.safetensors").write_bytes(bytes.fromhex(content))
    found = encode(ops, tmp_path)
    assert np.abs(found - np.array(saved["vectors"])).max() <= within(1e-5, ops)


@pytest.mark.parametrize("file", FILES)
def test_each_file_is_part_of_the_fingerprint(tmp_path: Path, file: str) -> None:
    write_bert(tmp_path)
    card = Card(id="x", path=tmp_path)
    before = open_checkpoint(card).fingerprint()
    write_json(tmp_path / file, {"max_seq_length": 32, "do_lower_case": True})
    assert open_checkpoint(card).fingerprint() != before


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"max_seq_length": 0}, "`max_seq_length` must be a number of tokens, not 0"),
        ({"max_seq_length": -1}, "`max_seq_length` must be a number of tokens, not -1"),
        ({"max_seq_length": "512"}, "`max_seq_length` must be a number of tokens, not '512'"),
        ({"max_seq_length": 16.5}, "`max_seq_length` must be a number of tokens, not 16.5"),
        ({"max_seq_length": True}, "`max_seq_length` must be a number of tokens, not True"),
        ({"do_lower_case": "no"}, "`do_lower_case` must be true or false, not 'no'"),
        ({"transformer_task": "any-to-any"}, "`transformer_task` of `any-to-any` is not supported"),
        ({"config_kwargs": {"num_hidden_layers": 1}}, "`num_hidden_layers` in `config_kwargs`"),
        ({"model_args": {"adapter": "x"}}, "`adapter` in `model_kwargs` is not supported"),
        ({"model_kwargs": 7}, "`model_kwargs` must be an object"),
        ({"query_length": 32}, "`query_length` is not supported but in"),
        ({"document_length": 32}, "`document_length` is not supported but in"),
        ({"query_expansion": {"length": 9}}, "`query_expansion` is not supported but in"),
        ({"tokenizer_name_or_path": "other"}, "`tokenizer_name_or_path` is not supported"),
        ({"processing_kwargs": {"text": {"max_length": 9}}}, "`max_length` in `processing_kwargs`"),
        ({"processing_kwargs": {"text": [1]}}, "`processing_kwargs` must be an object of objects"),
        ({"modality_config": {"image": {}}}, "`modality_config` has no text"),
    ],
)
def test_a_setting_that_is_not_obeyed_is_refused_by_file_and_name(
    tmp_path: Path, stated: dict[str, Any], said: str
) -> None:
    write_bert(tmp_path)
    (tmp_path / "sentence_bert_config.json").unlink()
    file = tmp_path / "sentence_roberta_config.json"
    write_json(file, stated)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(Card(id="x", path=tmp_path))
    assert f"{file}: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"prompts": ["query"]}, "expected an object or null, not a list - at `$.prompts`"),
        (
            {"prompts": {"query": 7}},
            "expected a string or null, not a whole number - at `$.prompts[...]`",
        ),
        ({"prompts": {"a\nb": "x"}}, "'a\\nb' is no name for a prompt"),
        ({"prompts": {"a" * 201: "x"}}, "is no name for a prompt"),
        ({"default_prompt_name": "other"}, "`default_prompt_name`: there is no prompt `other`"),
        ({"truncate_dim": 0}, "`truncate_dim` must be at least 1, not 0"),
        ({"truncate_dim": "8"}, "expected a whole number or null, not a string"),
    ],
)
def test_what_is_wrong_for_a_whole_model_is_refused_by_file(
    tmp_path: Path, stated: dict[str, Any], said: str
) -> None:
    write_bert(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    write_json(file, stated)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(Card(id="x", path=tmp_path))
    assert f"{file}: " in str(caught.value)
    assert said in str(caught.value)


def vector(client: TestClient, **request: Any) -> list[float]:
    answer = client.post("/v1/embeddings", json={"model": "m"} | request)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["embedding"]


def test_the_default_prompt_is_put_before_an_input_that_asks_for_none(tmp_path: Path) -> None:
    write(tmp_path / "m", CASES["default prompt"])
    (tmp_path / "models.toml").write_text("[models.m]\npath = 'm'\n")
    with serve(models=tmp_path / "models.toml") as client:
        found = vector(client, input="z")
        assert np.abs(np.array(found) - RECORD["vectors"]["default prompt"][-1]).max() < 1e-5
        assert vector(client, input="z", prompt_name="query") == found
        assert vector(client, input="z", prompt="") != found
        assert vector(client, input="z", input_type="document") != found
        tei = client.post("/embed", json={"model": "m", "inputs": "z"}).json()[0]
        assert np.allclose(tei, found, atol=1e-6)


def test_a_card_with_prompts_of_its_own_needs_no_default(tmp_path: Path) -> None:
    write(tmp_path, CASES["default prompt"])
    own = open_checkpoint(Card(id="x", path=tmp_path, prompts={"query": "q: "}))
    none = open_checkpoint(Card(id="x", path=tmp_path, prompts={}))
    assert (own.default_prompt, none.default_prompt) == ("q: ", "")
