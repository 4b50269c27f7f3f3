"""What a checkpoint's files say of a classifier's outputs."""

from pathlib import Path
from typing import Any

import pytest

from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.scoring import ACTIVATIONS, Scoring, read_scoring
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_json

ONE = {"id2label": {"0": "LABEL_0"}}
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.Tanh"


def read(folder: Path, **config: Any) -> Scoring:
    return read_scoring(Files("x", folder), config)


def test_labels_are_those_of_the_config(tmp_path: Path) -> None:
    assert read(tmp_path).labels == ("LABEL_0", "LABEL_1")
    assert read(tmp_path, num_labels=1).labels == ("LABEL_0",)
    assert read(tmp_path, id2label={"1": "b", "0": "a"}).labels == ("a", "b")


def test_one_label_has_a_sigmoid_and_several_have_none(tmp_path: Path) -> None:
    assert read(tmp_path, **ONE).activation == "sigmoid"
    assert read(tmp_path, num_labels=3).activation == "identity"


def test_the_activation_is_looked_for_where_sentence_transformers_looks(tmp_path: Path) -> None:
    oldest = {"sbert_ce_default_activation_function": TANH}
    assert read(tmp_path, **ONE, **oldest).activation == "tanh"
    newer = {"sentence_transformers": {"activation_fn": IDENTITY}}
    assert read(tmp_path, **ONE, **oldest, **newer).activation == "identity"
    write_json(
        tmp_path / "config_sentence_transformers.json", {"activation_fn": "torch.nn.Softmax"}
    )
    assert read(tmp_path, **ONE, **oldest, **newer).activation == "softmax"


def test_labels_that_may_all_be_true_are_known(tmp_path: Path) -> None:
    assert read(tmp_path, problem_type="multi_label_classification").multi_label
    assert not read(tmp_path, problem_type="single_label_classification").multi_label


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sbert_ce_default_activation_function": "os.system"}, "`os.system` is not supported"),
        ({"sentence_transformers": {"activation_fn": ["a"]}}, "is not supported"),
        ({"num_labels": 0}, "`num_labels` must be a number, not 0"),
        ({"num_labels": True}, "`num_labels`"),
        ({"num_labels": 10**9}, "`num_labels`"),
        *(({"id2label": value}, "`id2label` must name") for value in ({}, [], 3, {"1": "a"})),
        ({"id2label": {"0": 5}}, "`id2label` must name"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_its_key(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        read(tmp_path, **config)


def test_names_of_activations_are_known_short_and_long() -> None:
    assert len(ACTIVATIONS) == 8
    assert ACTIVATIONS["torch.nn.modules.activation.Sigmoid"] == "sigmoid"
