"""`embedsvc verify` of rerankers and classifiers."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.cli import main
from embedsvc.diagnosis import verify_scores as verification
from embedsvc.diagnosis.verify import Check
from embedsvc.diagnosis.verify_scores import PAIRS, verify_scores
from embedsvc.inference.encoder import Encoder
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.item import Item
from tests.support.checkpoints import write_json
from tests.support.classifiers import CLASSIFIERS
from tests.support.decoders import write_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLASSIFIERS["xlm-roberta-scores"].write(tmp_path_factory.mktemp("scorer"))


@pytest.fixture
def scorer(folder: Path) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder))


def checks(checkpoint: Checkpoint) -> dict[str, Check]:
    return {check.name: check for check in verify_scores(NumpyOps(), checkpoint)}


def test_a_sound_reranker_is_told_in_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, said in ((folder, "64 tokens, scores LABEL_0"), (tmp_path, "asked by a template")):
        if path is tmp_path:
            write_decoder(path)
        assert main(["verify", str(path), "--backend", "numpy"]) == 0
        told = capsys.readouterr().out
        assert said in told
        assert "ok     alone = in a batch: off by" in told
        assert "-      equals sentence-transformers: it is not installed" in told
        assert "is sound; nothing to compare it with" in told


def test_scores_that_depend_on_the_batch_are_found(
    scorer: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Encoder.run

    def wrong(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        results = run(self, items, head)
        return [results[-1], *results[1:]] if len(items) > 1 else results

    monkeypatch.setattr(Encoder, "run", wrong)
    assert checks(scorer)["alone = in a batch"].passed is False


def test_a_score_that_is_not_finite_is_found(tmp_path: Path) -> None:
    CLASSIFIERS["xlm-roberta-scores"].write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["roberta.embeddings.word_embeddings.weight"][6] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    found = checks(open_checkpoint(Card(id="x", path=tmp_path)))
    assert found["finite"].passed is False


def with_cross_encoder(monkeypatch: pytest.MonkeyPatch, scores: Any) -> None:
    """Pretend that sentence-transformers is there, and gives these scores or fails."""

    class CrossEncoder:
        def __init__(self, path: str, **options: object) -> None:
            if scores is None:
                raise ValueError("no such model\nand more")

        def float(self) -> "CrossEncoder":
            return self

        def predict(self, pairs: list[tuple[str, str]], **options: object) -> Any:
            assert pairs == PAIRS
            return scores

    for name, contents in (
        ("sentence_transformers", {"CrossEncoder": CrossEncoder}),
        ("torch", {"nn": SimpleNamespace(Identity=lambda: None)}),
    ):
        library = ModuleType(name)
        vars(library).update(contents)
        monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: name)


def test_an_installed_sentence_transformers_has_the_last_word(
    scorer: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = verification.load_encoder(NumpyOps(), scorer)
    own = verification._scores(encoder, verification._items(scorer, encoder))[:, 0]
    name = "equals sentence-transformers"
    for scores, passed in ((own, True), (np.roll(own, 1), False), (np.stack([own] * 2, 1), False)):
        with_cross_encoder(monkeypatch, scores)
        assert checks(scorer)[name].passed is passed
    with_cross_encoder(monkeypatch, None)
    assert checks(scorer)[name].found == "it cannot load the model: no such model"


def test_what_quantisation_costs_is_told_beside_the_original(
    scorer: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = SimpleNamespace(in_words=lambda: "4 bits")
    monkeypatch.setattr(verification, "read_quantization", lambda config: said)

    def cost(original: Checkpoint | None) -> Check:
        return list(verify_scores(NumpyOps(), scorer, original))[-1]

    assert cost(None).passed is None
    assert cost(scorer).found.endswith("correlation with the scores of `x` 1.0000")
    other = CLASSIFIERS["bert-scores"].write(tmp_path)
    assert cost(open_checkpoint(Card(id="other", path=other))).passed is False


def test_what_is_not_supported_is_refused(tmp_path: Path) -> None:
    case = CLASSIFIERS["bert-scores"]
    case.write(tmp_path)
    write_json(tmp_path / "config.json", case.config | {"architectures": ["XForSequenceClassification"]})  # fmt: skip  # noqa: E501
    assert main(["verify", str(tmp_path), "--backend", "numpy"]) == 4
