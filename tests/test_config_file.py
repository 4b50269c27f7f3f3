"""config.json: what kind of model it is of."""

from pathlib import Path
from typing import Any

import pytest

from embedsvc.checkpoints.config_file import read_config
from embedsvc.checkpoints.files import Files
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import CONFIG, write_json


def read(folder: Path, *, static: bool = False, **config: Any) -> dict[str, Any]:
    write_json(folder / "config.json", CONFIG | config)
    return read_config(Files("x", folder), static=static)


@pytest.mark.parametrize(
    ("class_name", "kind"), [("BertModel", "bert"), ("XLMRobertaForMaskedLM", "xlm-roberta")]
)
def test_a_config_older_than_model_type_is_known_by_its_class(
    tmp_path: Path, class_name: str, kind: str
) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "model_type"}
    write_json(tmp_path / "config.json", config | {"architectures": [class_name]})
    assert read_config(Files("x", tmp_path), static=False)["model_type"] == kind


def test_static_embeddings_are_a_kind_of_their_own(tmp_path: Path) -> None:
    assert read(tmp_path, static=True)["model_type"] == "static"


def test_a_kind_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say its `model_type`"):
        read(tmp_path, model_type=7)
