"""What the files of late-interaction models say, and what of it is refused."""

from pathlib import Path
from typing import Any

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.late_interaction import Expansion
from embedsvc.errors import CheckpointError
from embedsvc.texts.roles import open_roles
from embedsvc.texts.tokenizer import open_tokenizer
from tests.support.checkpoints import write_bert, write_json
from tests.support.colbert import COLBERTS, PYLATE


def opened(folder: Path, **card: Any) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder, **card))


def test_such_a_model_ranks_and_its_card_may_say_so(tmp_path: Path) -> None:
    COLBERTS["pylate"].write(tmp_path)
    checkpoint = opened(tmp_path, task="rerank")
    assert (checkpoint.task, checkpoint.pooling, checkpoint.max_tokens) == ("rerank", (), 40)
    assert checkpoint.late
    assert checkpoint.late.expansion == Expansion(16, False, checkpoint.late.expansion.tokens, True)
    with pytest.raises(CheckpointError, match="its card has `task"):
        opened(tmp_path, task="embed")


def test_a_card_says_how_long_documents_may_be(tmp_path: Path) -> None:
    COLBERTS["pylate"].write(tmp_path)
    late = opened(tmp_path, max_tokens=60).late
    assert late
    assert (late.query_tokens, late.document_tokens) == (16, 60)


def test_fingerprints_depend_on_what_is_said_of_texts(tmp_path: Path) -> None:
    COLBERTS["pylate"].write(tmp_path)
    before = opened(tmp_path).fingerprint()
    write_json(tmp_path / "config_sentence_transformers.json", PYLATE | {"skiplist_words": []})
    assert opened(tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"query_length": 0}, "`query_expansion` of"),
        ({"document_length": "40"}, "`document_length` must be a number of tokens, not '40'"),
        ({"document_length": -1}, "`document_length` must be a number of tokens, not -1"),
        ({"skiplist_words": "."}, "`skiplist_words` must be a list of 1000 tokens"),
        ({"skiplist_words": [1]}, "`skiplist_words` must be a list of 1000 tokens"),
        ({"query_prefix": ["[Q] "]}, "has a prefix that is no text"),
        ({"query_expansion": {"strategy": "other", "length": 9}}, "`query_expansion` of"),
        ({"query_expansion": {"strategy": "min", "length": 9, "x": 1}}, "`query_expansion` of"),
        ({"prompts": {"query": 7}}, "expected a string or null"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(
    tmp_path: Path, about: dict[str, Any], said: str
) -> None:
    COLBERTS["pylate"].write(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    about = PYLATE | about
    if "query_expansion" in about:
        del about["query_length"]
    if about.get("query_length") == 0:
        about["query_expansion"] = {"strategy": "fixed", "length": 0}
    write_json(file, about)
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path)
    assert f"{file}: " in str(caught.value)
    assert said in str(caught.value)


def test_queries_whose_expansion_would_see_none_of_them_are_refused(tmp_path: Path) -> None:
    COLBERTS["pylate-modernbert"].write(tmp_path)
    about = COLBERTS["pylate-modernbert"].about | {"query_length": 17}
    write_json(tmp_path / "config_sentence_transformers.json", about)
    with pytest.raises(CheckpointError, match=r"expanded to 17 tokens.*`local_attention` is 32"):
        opened(tmp_path)
    write_json(
        tmp_path / "config_sentence_transformers.json", about | {"attend_to_expansion_tokens": True}
    )
    assert opened(tmp_path).late


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("MultiVectorMask", "HierarchicalTokenPooling", "HierarchicalTokenPooling` is not"),
        ("models.Transformer", "models.StaticEmbedding", "first module must be a Transformer"),
        ("models.Dense", "models.LayerNorm", "module `LayerNorm` is not supported in a model"),
        ("models.Dense", "models.Pooling", "module `Pooling` is not supported in a model"),
    ],
)
def test_modules_that_are_for_other_models_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    COLBERTS["multi-vector"].write(tmp_path)
    file = tmp_path / "modules.json"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        opened(tmp_path)


def test_a_mask_that_keeps_some_tokens_alone_is_refused(tmp_path: Path) -> None:
    COLBERTS["multi-vector"].write(tmp_path)
    write_json(tmp_path / "2_MultiVectorMask" / "config.json", {"keep_only_token_ids": [7]})
    with pytest.raises(CheckpointError, match="`keep_only_token_ids` is not supported"):
        opened(tmp_path)


def test_a_token_to_expand_by_has_to_be_there(tmp_path: Path) -> None:
    case = COLBERTS["multi-vector"]
    case.write(tmp_path)
    expansion = {"strategy": "fixed", "length": 9, "token": "[OTHER]"}
    write_json(tmp_path / "sentence_bert_config.json", {"query_expansion": expansion})
    checkpoint = opened(tmp_path)
    with pytest.raises(CheckpointError, match=r"none of the tokens that queries .* by: \[OTHER\]"):
        open_roles(checkpoint, open_tokenizer(checkpoint, None))


def test_other_models_have_no_roles(tmp_path: Path) -> None:
    checkpoint = opened(write_bert(tmp_path))
    with pytest.raises(CheckpointError, match="no late-interaction model"):
        open_roles(checkpoint, open_tokenizer(checkpoint, None))
