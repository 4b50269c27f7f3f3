"""Token ids equal those of sentence-transformers, whatever files the tokeniser is described by.

`tests/reference/record_tokenizers.py` made the tokenisers and recorded the ids.
"""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.errors import BadRequest, CheckpointError
from embedsvc.texts.inputs import DEFAULT_OPTIONS, tokenize
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.checkpoints import CONFIG, write_json

REFERENCE = Path(__file__).parent / "reference"
FOLDERS = REFERENCE / "tokenizers"
RECORD = json.loads((REFERENCE / "tokenizers.json").read_text(encoding="utf-8"))
NAMES = sorted(RECORD["ids"])
ONLY_OLD_FILES = "vocabulary-only"


def test_every_tokeniser_is_recorded() -> None:
    assert {folder.name for folder in FOLDERS.iterdir()} == set(NAMES)
    assert len(NAMES) == 16


@pytest.mark.parametrize("name", [name for name in NAMES if name != ONLY_OLD_FILES])
def test_ids_equal_sentence_transformers(name: str) -> None:
    tokenizer = read_tokenizer("x", FOLDERS / name)
    for text, ids in zip(RECORD["texts"], RECORD["ids"][name], strict=True):
        assert tokenizer.encode(text).ids == ids, text


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_equals_sentence_transformers(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(FOLDERS / name, folder)
    write_json(folder / "config.json", CONFIG | {"max_position_embeddings": 100})
    checkpoint = open_checkpoint(Card(id="x", path=folder, pooling="mean"))
    assert checkpoint.max_tokens == RECORD["max_tokens"][name]


def test_a_checkpoint_that_knows_no_limit_needs_one_in_its_card(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "xlm-roberta", tmp_path, dirs_exist_ok=True)
    write_json(tmp_path / "config.json", {"model_type": "unheard-of"})
    with pytest.raises(CheckpointError, match="give the card a `max_tokens`"):
        open_checkpoint(Card(id="x", path=tmp_path, pooling="mean"))
    card = Card(id="x", path=tmp_path, pooling="mean", max_tokens=77)
    assert open_checkpoint(card).max_tokens == 77


def test_without_special_tokens_a_text_may_have_no_token_and_is_refused() -> None:
    tokenizer = Tokenizer("x", FOLDERS / "bert", 512, special_tokens=False)
    with_special = Tokenizer("x", FOLDERS / "bert", 512)
    (ids,) = tokenizer.encode(["hello"])
    assert ids.tolist() == with_special.encode(["hello"])[0][1:-1].tolist()
    with pytest.raises(BadRequest, match=r"Invalid 'input\[1\]': the model has no token for it"):
        run_to_end(tokenize(tokenizer, ["hello", " "], DEFAULT_OPTIONS))


def test_without_tokenizer_json_the_command_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"pip install 'embedsvc\[mlx-embeddings\]'"):
        read_tokenizer("x", FOLDERS / ONLY_OLD_FILES)


def test_without_tokenizer_json_transformers_makes_one_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []

    def from_pretrained(folder: str, **_: object) -> SimpleNamespace:
        made.append(folder)
        whole = (FOLDERS / "bert" / "tokenizer.json").read_text(encoding="utf-8")
        return SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: whole))

    library = ModuleType("transformers")
    library.AutoTokenizer = SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", library)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        tokenizer = read_tokenizer("x", FOLDERS / ONLY_OLD_FILES)
        assert (
            tokenizer.encode("hello").ids
            == read_tokenizer("x", FOLDERS / "bert").encode("hello").ids
        )
    assert made == [str(FOLDERS / ONLY_OLD_FILES)]
    assert len(list((tmp_path / "embedsvc" / "tokenizers").iterdir())) == 1
