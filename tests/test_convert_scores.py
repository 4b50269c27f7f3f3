"""`embedsvc convert` of rerankers and classifiers."""

import re
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.cli import main
from embedsvc.diagnosis.verify_scores import scores_of
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.classifiers import CLASSIFIERS
from tests.support.decoders import write_decoder

EIGHT_BITS = Precision("float32", bits=8, group_size=32)
HEAD = re.compile(r"classifier|head\.|score|pooler")


def off(scores: np.ndarray, expected: np.ndarray) -> float:
    """How far scores are off, as a part of their range."""
    return float(np.abs(scores - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_class_computes_with_quantised_weights(tmp_path: Path, name: str) -> None:
    case = CLASSIFIERS[name]
    original = open_checkpoint(Card(id=name, path=case.write(tmp_path / "original")))
    convert(original, tmp_path / "out", EIGHT_BITS)
    converted = open_checkpoint(Card(id=name, path=tmp_path / "out"))
    for what in ("scoring", "pooling", "max_tokens", "class_name"):
        assert getattr(converted, what) == getattr(original, what), what
    packed = [name for name in converted.tensors().entries() if name.endswith(".scales")]
    assert packed
    assert not any(HEAD.search(name) for name in packed)

    def scores(checkpoint: Checkpoint, ops: NumpyOps | MlxOps) -> np.ndarray:
        items = case.items()
        return HEADS["scores"].unpack(load_encoder(ops, checkpoint).run(items, "scores"), items)

    expected, expanded = (scores(each, NumpyOps()) for each in (original, converted))
    assert 0 < off(expanded, expected) <= 0.05
    assert off(scores(converted, MlxOps("float32")), expanded) <= 1e-4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("modules", [True, False])
def test_a_decoder_is_asked_as_before(tmp_path: Path, *, modules: bool, tied: bool) -> None:
    write_decoder(tmp_path / "original", modules=modules, tied=tied)
    original = open_checkpoint(Card(id="x", path=tmp_path / "original", task="rerank"))
    convert(original, tmp_path / "out", EIGHT_BITS)
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out", task="rerank"))
    assert converted.pair_template == original.pair_template
    assert converted.default_prompt == original.default_prompt
    expected = scores_of(NumpyOps(), original)
    assert 0 < off(scores_of(NumpyOps(), converted), expected) <= 0.05


def test_the_command_tells_how_far_scores_are_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_decoder(tmp_path / "original", modules=False), tmp_path / "out"
    cards = tmp_path / "models.toml"
    cards.write_text(f"[models.x]\npath = '{folder}'\ntask = 'rerank'\n")
    options = ["--models", str(cards), "--backend", "numpy"]
    assert main(["convert", "x", str(out), "--bits", "8", "--group-size", "32", *options]) == 0
    told = capsys.readouterr().out
    said = re.search(r"pairs: off by (\S+) .* average, (\S+) at worst; (\d+)% in order", told)
    assert said
    assert 0 < float(said[1]) < float(said[2]) < 0.05
    assert 90 < int(said[3]) <= 100
    card = re.search(r"(\[models.*\]) with (path = .*) and (task = .*)", told)
    assert card
    cards.write_text("\n".join(card.groups()) + "\n")
    assert main(["verify", "x", *options, "--original", str(folder)]) == 4  # no task is said of it
    assert main(["verify", "x", *options]) == 0


def test_a_pooling_that_only_the_card_says_is_not_lost(tmp_path: Path) -> None:
    folder = CLASSIFIERS["modernbert-modules"].write(tmp_path / "original")
    original = open_checkpoint(Card(id="x", path=folder, pooling="mean"))
    with pytest.raises(CheckpointError, match="cannot say its card's `pooling`"):
        convert(original, tmp_path / "out", EIGHT_BITS)
    assert not (tmp_path / "out").exists()
