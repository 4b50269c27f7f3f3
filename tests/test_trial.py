"""What is found out about a checkpoint without reading its weights."""

from pathlib import Path

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.diagnosis import trial
from embedsvc.diagnosis.trial import try_checkpoint
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_bert, write_json
from tests.support.tiny import CASES


def test_a_folder_is_told_with_pooling_limits_and_memory(tmp_path: Path) -> None:
    write_bert(tmp_path)
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nlicense: other\n")
    found = try_checkpoint(Card(id="mine", path=tmp_path))
    assert found.loads
    assert found.facts["loads"] == "yes"
    assert found.facts["kind"] == "bert"
    assert found.facts["task"] == "embed"
    assert found.facts["pooling"].startswith("mean (by ")
    assert found.facts["licence"] == "mit"
    assert "tokens" in found.facts["longest text"]
    assert {name for name in found.facts if name.startswith("memory in ")} == {
        f"memory in {name}" for name, _, _ in trial.PRECISIONS
    }
    assert found.card == f'[models."mine"]\npath = "{tmp_path}"'


def test_a_folder_that_would_not_load_is_told_with_the_reason(tmp_path: Path) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "config.json", CASES["bert"].config | {"model_type": "roberta-next"})
    found = try_checkpoint(Card(id="mine", path=tmp_path))
    assert not found.loads
    assert "`roberta-next` is not supported" in found.facts["loads"]
    assert "the nearest that is, is `roberta`" in found.facts["loads"]
    assert "pooling" in found.card
    assert found.facts["licence"].startswith("not said")


@pytest.mark.parametrize(
    ("change", "loads", "said"),
    [
        ({}, True, "yes, as far as config.json tells"),
        ({"model_type": "roformer"}, False, "`roformer` is not supported"),
        ({"num_attention_heads": 5}, False, "`num_attention_heads`"),
        ({"hidden_act": "none"}, False, "'none'"),
        ({"architectures": ["BertForSequenceClassification"]}, True, "yes"),
        ({"architectures": ["XForSequenceClassification"]}, False, "`XForSeq"),
        (None, False, "no config.json"),
    ],
)
def test_of_files_that_are_not_here_config_json_tells(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object] | None, loads: bool, said: str
) -> None:
    config = {} if change is None else CASES["bert"].config | change
    monkeypatch.setattr(trial, "look_ahead", lambda card: (config, 90_000_000))
    monkeypatch.setattr(trial, "is_here", lambda card: False)
    found = try_checkpoint(Card(id="x", repo="somebody/model"))
    assert found.loads == loads
    assert said in found.facts["loads"]
    assert found.facts["memory in float32"] == "90 MB"
    assert found.facts["memory in bfloat16 on a CPU"] == "45 MB"
    assert found.card == '[models."x"]\nrepo = "somebody/model"'


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        try_checkpoint(Card(id="x", path=tmp_path / "nowhere"))
