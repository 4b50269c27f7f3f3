"""`embedsvc verify`: a verdict that can be trusted, either way."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.cli import main
from embedsvc.diagnosis import verify as verification
from embedsvc.diagnosis.verify import Check, verify
from embedsvc.inference.encoder import Encoder
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.item import TokenIds
from tests.support.checkpoints import write_bert
from tests.support.project import ROOT
from tests.support.tolerance import within


def checks(checkpoint: Checkpoint) -> dict[str, Check]:
    return {check.name: check for check in verify(NumpyOps(), checkpoint)}


def test_the_default_model_equals_the_recorded_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["verify", "all-MiniLM-L6-v2", "--models", str(ROOT / "models.toml")]
    assert main([*command, "--backend", "numpy"]) == 0
    said = capsys.readouterr().out
    assert "equals sentence-transformers: cosine 1.0000000" in said
    assert said.endswith("all-MiniLM-L6-v2 is right\n")
    assert said.count("\n  ok ") == 5


def test_without_anything_to_compare_with_that_is_said(
    tiny: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny.root), "--backend", "numpy"]) == 0
    said = capsys.readouterr().out
    assert "no numbers of it are recorded for these weights" in said
    assert "is sound; nothing to compare it with" in said


def test_programs_get_a_line_for_each_check(
    tiny: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny.root), "--backend", "numpy", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["check"]: each["passed"] for each in told} == {
        name: check.passed for name, check in checks(tiny).items()
    }
    assert all(each["found"] for each in told)


@pytest.mark.parametrize(
    ("device", "dtype", "least"),
    [
        ("Apple M1 (Metal)", "float32", verification.EXACT),
        ("Apple Paravirtual device (Metal)", "float32", 0.9999),
        ("Apple Paravirtual device (Metal)", "float16", verification.CLOSE),
        ("x86_64 CPU, 2 cores", "float32", verification.EXACT),
    ],
)
def test_a_virtual_mac_need_not_be_as_exact_as_a_real_one(
    device: str, dtype: str, least: float
) -> None:
    ops: Any = SimpleNamespace(device=device, dtype=dtype)
    assert verification.least_cosine(ops, verification.EXACT) == least
    virtual = "Paravirtual" in device
    assert within(1e-6, ops) == (1e-4 if virtual else 1e-6)
    assert within(1e-3, ops) == 1e-3


def test_vectors_that_depend_on_the_batch_are_found(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode

    def leaking(self: Encoder, texts: list[TokenIds]) -> np.ndarray:
        vectors = encode(self, texts)
        return vectors + 0.1 * vectors.mean(axis=0) if len(texts) > 1 else vectors

    monkeypatch.setattr(Encoder, "encode", leaking)
    assert checks(tiny)["alone = in a batch"].passed is False


def test_vectors_that_are_not_finite_are_found(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = Encoder.encode

    def failing(self: Encoder, texts: list[TokenIds]) -> np.ndarray:
        if len(texts) == 1 and len(texts[0]) > 20:
            raise verification.EmbeddingFailed("no finite vector")
        return encode(self, texts)

    monkeypatch.setattr(Encoder, "encode", failing)
    assert main(["verify", str(tiny_folder), "--backend", "numpy"]) == 1
    printed = capsys.readouterr()
    assert "WRONG  finite: no finite vector" in printed.out
    assert "is WRONG on this machine" in printed.err


def with_sentence_transformers(monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray) -> list[str]:
    """An installed sentence-transformers that gives these vectors; what it was asked to load."""
    asked: list[str] = []

    class SentenceTransformer:
        max_seq_length = 0

        def __init__(self, folder: str, **_: object) -> None:
            asked.append(folder)

        def float(self) -> "SentenceTransformer":
            return self

        def encode(self, texts: list[str], **_: object) -> np.ndarray:
            return vectors[[TEXTS.index(text) for text in texts]]

    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    monkeypatch.setattr(
        verification.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name)
    )
    return asked


def test_an_installed_sentence_transformers_has_the_last_word(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedsvc.inference.encoder import load_encoder
    from embedsvc.texts.tokenizer import Tokenizer

    def fails(*_: object, **__: object) -> None:
        raise NotImplementedError  # which says nothing

    ids = Tokenizer("x", tiny.folder, 10**9).encode(TEXTS)
    own = load_encoder(NumpyOps(), tiny).encode([text[:32] for text in ids])
    asked = with_sentence_transformers(monkeypatch, own)
    assert checks(tiny)["equals sentence-transformers"].passed
    assert asked == [str(tiny.root)]
    with_sentence_transformers(monkeypatch, np.roll(own, 1, axis=0))
    assert checks(tiny)["equals sentence-transformers"].passed is False
    with_sentence_transformers(monkeypatch, own[:, :4])
    assert checks(tiny)["equals sentence-transformers"].passed is False
    monkeypatch.setattr(sys.modules["sentence_transformers"], "SentenceTransformer", fails)
    found = checks(tiny)["equals sentence-transformers"].found
    assert found == "it cannot load the model: NotImplementedError"
    other = open_checkpoint(Card(id="x", path=tiny.root, pooling="cls"))
    assert checks(other)["equals sentence-transformers"].passed is None


SIZES = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """A folder with `quantized`, and the `original` that it was made from."""
    folder = write_bert(tmp_path / "original", **SIZES)
    convert(
        open_checkpoint(Card(id="original", path=folder)), tmp_path / "quantized", Precision(bits=4)
    )
    return tmp_path


def verified(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["verify", *map(str, arguments), "--backend", "numpy"])
    return code, capsys.readouterr().out


def test_what_quantisation_costs_is_told_beside_the_original(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = quantized / "quantized"
    code, said = verified(capsys, folder)
    assert code == 0
    assert "- quantised: affine, 4 bits in groups of 64; --original MODEL tells" in " ".join(
        said.split()
    )
    code, said = verified(capsys, folder, "--original", quantized / "original")
    assert code == 0
    assert "quantised: affine, 4 bits in groups of 64; to `original`: cosine 0.9" in said
    assert "on average" in said
    assert "quantized is right" in said


def test_the_original_is_the_model_that_the_card_is_like(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = quantized / "models.toml"
    lines = '[models.small]\npath = "quantized"\nlike = "{}"\nmax_tokens = 32\n'
    cards.write_text(lines.format("large") + '[models.large]\npath = "original"\n')
    _, said = verified(capsys, "small", "--models", cards)
    assert "; to `large`: cosine 0.9" in said
    cards.write_text(lines.format("bge-m3"))  # is shipped, and not on this disk
    _, said = verified(capsys, "small", "--models", cards)
    assert "--original MODEL tells" in said


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"hidden_size": 32}, "the vectors of `other` have 32 dimensions"),
        (SIZES, "to `other`: cosine"),
    ],
)
def test_a_quantised_model_beside_another_one_is_wrong(
    quantized: Path, capsys: pytest.CaptureFixture[str], sizes: dict[str, int], told: str
) -> None:
    other = write_bert(quantized / "other", **sizes)
    weights = other / "model.safetensors"
    save_file({name: -value[::-1].copy() for name, value in load_file(weights).items()}, weights)
    code, said = verified(capsys, quantized / "quantized", "--original", other)
    assert code == 1
    assert "WRONG  quantised: affine, 4 bits" in said
    assert told in said


def test_an_unknown_model_ends_with_the_code_of_a_wrong_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["verify", "no-such-model", "--models", str(ROOT / "models.toml")]) == 3
    assert "neither the name of a card nor a folder" in capsys.readouterr().err
