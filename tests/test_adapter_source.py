"""Where adapters are found, and the base models of those that lie alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import AdHocCard, Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.checkpoints.adapter import CONFIG
from embedsvc.checkpoints.adapter_source import find_adapter
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.errors import CheckpointError
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.adapters import BASE, FOLDER, recorded
from tests.support.checkpoints import write_json, write_pooling
from tests.support.hidden_states import hidden_states
from tests.support.tiny import CASES

TEXTS = CASES[BASE].texts()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return CASES[BASE].write(folder)


def alone(folder: Path, base: object) -> Path:
    """A folder with an adapter and no weights, whose base model is in another."""
    shutil.copytree(FOLDER / "plain", folder)
    config = json.loads((folder / CONFIG).read_text())
    write_json(folder / CONFIG, config | {"base_model_name_or_path": base})
    return folder


def test_an_adapter_alone_names_its_base_and_says_how_to_pool(base: Path, tmp_path: Path) -> None:
    folder = alone(tmp_path / "alone", str(base))
    write_pooling(folder, "mean_tokens")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 40})
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    assert checkpoint.folder == base
    assert checkpoint.pooling == ("mean",)
    assert checkpoint.max_tokens == 40
    found = hidden_states(NumpyOps(1), checkpoint, TEXTS[:-1])
    assert np.abs(found - recorded("plain")[: len(found)]).max() <= 1e-5


def test_a_bare_adapter_is_used_as_its_base_is(base: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(Card(id="x", path=alone(tmp_path / "alone", str(base))))
    assert checkpoint.pooling == ("cls",)
    assert checkpoint.max_tokens == 64


def test_an_adapter_beside_a_model_is_merged_into_it(base: Path) -> None:
    shutil.copytree(FOLDER / "plain", base, dirs_exist_ok=True)
    found = hidden_states(NumpyOps(1), open_checkpoint(Card(id="x", path=base)), TEXTS)
    assert np.abs(found - recorded("plain")).max() <= 1e-5


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (None, "names no `base_model_name_or_path`"),
        ("/nowhere/at/all", "there is no folder /nowhere"),
        ("nobody", "there is no folder nobody"),
    ],
)
def test_a_base_that_is_not_there_is_told(tmp_path: Path, named: object, said: str) -> None:
    folder = alone(tmp_path / "alone", named)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(Card(id="x", path=folder))


def test_files_of_strangers_open_no_folder_of_this_machine(base: Path, tmp_path: Path) -> None:
    folder = alone(tmp_path / "alone", str(base))
    with pytest.raises(CheckpointError, match="there is no folder"):
        find_adapter(AdHocCard(id="x", path=folder), folder)


def test_a_cards_adapter_is_looked_for_beside_the_cards(base: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "plain", tmp_path / "mine")
    file = tmp_path / "models.toml"
    file.write_text(f'[models.a]\npath = "{base}"\nadapter = "mine"\n')
    card = read_cards(file).by_id["a"]
    adapter, files = find_adapter(card, base)
    assert adapter is not None
    assert adapter.folder == tmp_path / "mine"
    assert files is None


def test_a_converted_model_has_its_adapter_in_its_weights(base: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "plain", base, dirs_exist_ok=True)
    convert(open_checkpoint(Card(id="x", path=base)), tmp_path / "out", Precision("float32"))
    found = hidden_states(NumpyOps(1), open_checkpoint(Card(id="x", path=tmp_path / "out")), TEXTS)
    assert np.abs(found - recorded("plain")).max() <= 1e-5
    elsewhere = open_checkpoint(Card(id="x", path=alone(tmp_path / "alone", str(base))))
    with pytest.raises(CheckpointError, match="is the base of an adapter"):
        convert(elsewhere, tmp_path / "never", Precision("float32"))
