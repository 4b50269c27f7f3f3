"""`embedsvc try`."""

import json
from pathlib import Path

import pytest

from embedsvc.cli import MODULES, main
from embedsvc.commands import try_checkpoint
from tests.support.checkpoints import write_bert


def test_it_prints_what_was_found_and_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_bert(folder)
    assert main(["try", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "loads " in out
    assert out.endswith(f'A card for models.toml:\n\n[models."mine"]\npath = "{folder}"\n')
    assert main(["try", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["loads"] is True
    assert told["facts"]["kind"] == "bert"


def test_it_ends_with_1_where_the_model_would_not_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bert(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    assert main(["try", str(tmp_path)]) == 1
    assert "no: " in capsys.readouterr().out


def test_what_is_neither_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["try", "no such thing"]) != 0
    assert "`no such thing` is no folder, no repository" in capsys.readouterr().err


def test_the_module_is_found_though_its_name_is_a_word_of_python() -> None:
    assert MODULES["try"] == try_checkpoint.__name__.rpartition(".")[2]
