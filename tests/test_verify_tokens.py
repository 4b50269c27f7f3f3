"""What `embedsvc verify` and `convert` tell of late-interaction models."""

import re
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.cli import main
from embedsvc.diagnosis.verify import Check
from embedsvc.diagnosis.verify_tokens import token_vectors_of, verify_tokens
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.colbert import COLBERTS


@pytest.mark.parametrize("name", ["stanford", "pylate-modernbert"])
def test_a_sound_model_is_told_in_words(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    COLBERTS[name].write(tmp_path)
    assert main(["verify", str(tmp_path), "--backend", "numpy"]) == 0
    told = capsys.readouterr().out
    assert "dimensions for each token, numpy float32" in told
    assert "ok     alone = in a batch: cosine" in told
    assert "is sound; nothing to compare it with" in told


@pytest.mark.parametrize("name", ["stanford", "multi-vector"])
def test_a_model_that_was_converted_gives_nearly_the_same(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = COLBERTS[name].write(tmp_path / "model"), tmp_path / "half"
    assert main(["convert", str(folder), str(out), "--dtype", "float16", "--backend", "numpy"]) == 0
    average = re.search(r"vectors: ([\d.]+) on average", capsys.readouterr().out)
    assert average
    assert float(average[1]) >= 0.9999
    first, second = (open_checkpoint(Card(id="x", path=path)) for path in (folder, out))
    apart = token_vectors_of(NumpyOps(), first) - token_vectors_of(NumpyOps(), second)
    assert 0 < np.abs(apart).max() <= 0.01
    *_, last = verify_tokens(NumpyOps(), second, first)
    assert last == Check("equals sentence-transformers", None, "it is not installed")
