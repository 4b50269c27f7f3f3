"""`embedsvc convert`: a checkpoint in another precision, which loads again without a card."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.cli import main
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_bert, write_json, write_modules
from tests.support.modules_cases import NORMALIZE, dense, pooling
from tests.support.tiny import CASES
from tests.support.tolerance import within
from tests.support.torch_files import as_torch

IDS = [np.array([2, 5, 9, 3], np.int32), np.array([2, 30, 31, 12, 3], np.int32)]
SIZES = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture
def original(tmp_path: Path) -> Checkpoint:
    """A BERT wide enough for groups, with a dense layer after its pooling."""
    folder = write_bert(tmp_path / "original", pooling=None, **SIZES)
    write_modules(folder, pooling("mean"), dense(64, 8, "Tanh"), NORMALIZE)
    prompts = {"prompts": {"query": "query: "}}
    write_json(folder / "config_sentence_transformers.json", prompts)
    return open_checkpoint(Card(id="x", path=folder))


def vectors(checkpoint: Checkpoint, ops: Ops | None = None) -> np.ndarray:
    return load_encoder(ops or NumpyOps(), checkpoint).encode(IDS)


def apart(x: np.ndarray, y: np.ndarray) -> float:
    """The largest cosine distance of two lists of unit vectors."""
    return 1 - float(np.einsum("nd,nd->n", x.astype(float), y).min())


@pytest.mark.parametrize(
    ("precision", "bound", "share"),
    [
        (Precision("float32"), 1e-6, 1.0),
        (Precision("float16"), 1e-5, 0.5),
        (Precision("bfloat16"), 1e-3, 0.5),
        (Precision(bits=8), 1e-3, 0.35),
        (Precision(bits=6), 1e-3, 0.3),
        (Precision(bits=5), 0.01, 0.27),
        (Precision(bits=4, group_size=32), 0.05, 0.25),
        (Precision(bits=3, group_size=32), 0.2, 0.22),
        (Precision(bits=2, group_size=32), 0.9, 0.19),
        (Precision(mode="mxfp8"), 0.01, 0.33),
        (Precision(mode="mxfp4"), 0.1, 0.22),
        (Precision(mode="nvfp4"), 0.05, 0.23),
    ],
)
def test_a_converted_checkpoint_loads_again_and_stays_close(
    original: Checkpoint, tmp_path: Path, ops: Ops, precision: Precision, bound: float, share: float
) -> None:
    convert(original, tmp_path / "out", precision)
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out"))
    assert apart(vectors(converted, ops), vectors(original)) <= within(bound, ops)
    before = (original.folder / "model.safetensors").stat().st_size
    assert (tmp_path / "out" / "model.safetensors").stat().st_size <= share * before + 4096


def test_the_files_of_sentence_transformers_are_kept(original: Checkpoint, tmp_path: Path) -> None:
    (original.root / "onnx").mkdir()
    (original.root / "onnx" / "model.onnx").touch()
    (original.root / "pytorch_model.bin").touch()
    convert(original, tmp_path / "out", Precision(bits=4, group_size=32))
    files = {
        str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*") if f.is_file()
    }
    assert files == {
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "3_Normalize/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    }
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out"))
    for name in ("pooling", "normalize", "max_tokens", "prompts", "model_type"):
        assert getattr(converted, name) == getattr(original, name), name
    assert converted.config["quantization"] == {"group_size": 32, "bits": 4}


def test_modules_in_torchs_files_are_kept(original: Checkpoint, tmp_path: Path, ops: Ops) -> None:
    folder = as_torch(Path(shutil.copytree(original.root, tmp_path / "torch")))
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    convert(checkpoint, tmp_path / "out", Precision("float32"))
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out"))
    names = {f.name for f in (tmp_path / "out").rglob("*") if f.suffix in (".bin", ".safetensors")}
    assert names == {"model.safetensors", "pytorch_model.bin"}
    assert np.array_equal(vectors(converted, ops), vectors(original, ops))


def test_what_only_the_card_said_is_written_down(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "original", pooling=None, **SIZES)
    card = Card(
        id="x", path=folder, pooling=("max", "cls"), max_tokens=20, prompts={"document": "d: "}
    )
    original = open_checkpoint(card)
    convert(original, tmp_path / "out", Precision("float16"))
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out"))
    assert converted.pooling == ("max", "cls")
    assert converted.normalize
    assert (converted.max_tokens, converted.prompts) == (20, {"document": "d: "})
    assert apart(vectors(converted), vectors(original)) <= 1e-5


def test_small_matrices_and_norms_stay_whole(original: Checkpoint, tmp_path: Path) -> None:
    convert(original, tmp_path / "out", Precision(bits=4, group_size=32))
    stored = load_file(tmp_path / "out" / "model.safetensors")
    packed = {name.removesuffix(".scales") for name in stored if name.endswith(".scales")}
    assert "embeddings.word_embeddings" in packed
    assert "encoder.layer.1.attention.self.query" in packed
    assert not any("position" in name or "Norm" in name or "pooler" in name for name in packed)
    tensors = open_checkpoint(Card(id="x", path=tmp_path / "out")).tensors()
    weight = tensors.take_weight("encoder.layer.1.output.dense.weight", 64, 128)
    assert isinstance(weight, Quantized)
    assert (weight.bits, weight.group_size) == (4, 32)


QUANTISABLE = [name for name, case in CASES.items() if "layer" in str(case.config)]


@pytest.mark.parametrize("name", QUANTISABLE)
def test_every_architecture_computes_with_quantised_weights(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    original = open_checkpoint(Card(id=name, path=case.write(tmp_path / "original")))
    convert(original, tmp_path / "out", Precision("float32", bits=8, group_size=32))
    converted = open_checkpoint(Card(id=name, path=tmp_path / "out"))
    assert any(name.endswith(".scales") for name in converted.tensors().entries())
    texts = [text[:17] for text in case.texts()]
    expected = load_encoder(NumpyOps(), original).encode(texts)
    expanded = load_encoder(NumpyOps(), converted).encode(texts)
    packed = load_encoder(MlxOps("float32"), converted).encode(texts)
    assert np.abs(packed - expanded).max() <= 1e-4
    assert apart(expanded, expected) <= 1e-3


def test_static_embeddings_are_rounded_but_not_quantised(tmp_path: Path) -> None:
    case = CASES["static"]
    original = open_checkpoint(Card(id="static", path=case.write(tmp_path / "original")))
    with pytest.raises(CheckpointError, match="static embeddings cannot be quantised"):
        convert(original, tmp_path / "out", Precision(bits=8))
    convert(original, tmp_path / "out", Precision("float16"))
    converted = open_checkpoint(Card(id="static", path=tmp_path / "out"))
    vectors = [load_encoder(NumpyOps(), c).encode(case.texts()) for c in (original, converted)]
    assert apart(*vectors) <= 1e-5


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        (Precision(), "a dtype, a number of bits, or a mode"),
        (Precision(bits=7), "weights of 7 bits are not supported"),
        (
            Precision(bits=8, mode="mxfp4"),
            "mxfp4 has 4 bits in groups of 32, not 8 in groups of 32",
        ),
        (Precision(group_size=64, mode="nvfp4"), "nvfp4 has 4 bits in groups of 16, not 4 in gro"),
        (Precision(bits=4, group_size=16), "groups of 16 are not supported"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(
    original: Checkpoint, tmp_path: Path, precision: Precision, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        convert(original, tmp_path / "out", precision)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_quantised_twice(
    original: Checkpoint, tmp_path: Path
) -> None:
    convert(original, tmp_path / "out", Precision(bits=4))
    with pytest.raises(CheckpointError, match="is there already"):
        convert(original, tmp_path / "out", Precision(bits=4))
    converted = open_checkpoint(Card(id="x", path=tmp_path / "out"))
    with pytest.raises(CheckpointError, match="quantised already"):
        convert(converted, tmp_path / "again", Precision(bits=8))


def test_the_command_prints_what_it_cost(
    original: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = tmp_path / "models.toml"
    cards.write_text(f"[models.x]\npath = '{original.root}'\naliases = ['y']\n")
    out = tmp_path / "out"
    options = ["--models", str(cards), "--backend", "numpy"]
    assert main(["convert", "y", str(out), "--bits", "8", "--group-size", "32", *options]) == 0
    said = re.search(r"cosine .*: (\S+) on average, (\S+) at worst", capsys.readouterr().out)
    assert said
    assert 0.99 < float(said[2]) <= float(said[1]) <= 1
    assert json.loads((out / "config.json").read_text())["quantization"]["bits"] == 8
    assert main(["convert", "y", str(out), "--bits", "8", *options]) == 4
    assert main(["convert", "y", str(tmp_path / "mxfp8"), "--mode", "mxfp8", *options]) == 0
    said = json.loads((tmp_path / "mxfp8" / "config.json").read_text())["quantization"]
    assert said == {"mode": "mxfp8", "bits": 8, "group_size": 32}
    cards.write_text(f"[models.x]\npath = '{tmp_path / 'mxfp8'}'\n")
    for backend in ("numpy", "native", "mlx"):
        assert main(["verify", "x", "--models", str(cards), "--backend", backend]) == 0
    assert "is there already" in capsys.readouterr().err
