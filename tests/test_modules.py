"""What sentence-transformers does to hidden states, against vectors recorded from it."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.checkpoints import write_bert, write_json, write_modules
from tests.support.modules_cases import CASES, NORMALIZE, TEXTS, WIDTH, Module, dense, pooling
from tests.support.tolerance import within

RECORD = json.loads((Path(__file__).parent / "reference" / "modules.json").read_text())


def write(folder: Path, *modules: Module) -> Card:
    write_bert(folder, pooling=None)
    write_modules(folder, *modules)
    return Card(id="x", path=folder)


def encode(ops: Ops, card: Card) -> np.ndarray:
    """Vectors of the texts, in one batch."""
    checkpoint = open_checkpoint(card)
    tokenizer = Tokenizer("x", checkpoint.folder, checkpoint.max_tokens)
    return load_encoder(ops, checkpoint).encode(tokenizer.encode(TEXTS))


@pytest.mark.parametrize("name", CASES)
def test_vectors_equal_sentence_transformers(ops: Ops, tmp_path: Path, name: str) -> None:
    recorded = np.array(RECORD["vectors"][name])
    vectors = encode(ops, write(tmp_path, *CASES[name]))
    assert vectors.shape == recorded.shape
    assert np.abs(vectors - recorded).max() <= within(1e-5, ops) * np.abs(recorded).max()


def test_the_card_may_ask_for_another_pooling_and_for_unit_length(tmp_path: Path) -> None:
    write(tmp_path, pooling("mean"), dense(WIDTH, 4, "Tanh"))
    card = Card(id="x", path=tmp_path, normalize=True)
    assert np.abs(np.linalg.norm(encode(NumpyOps(), card), axis=1) - 1).max() < 1e-6
    write(tmp_path, pooling("mean"))
    both = encode(NumpyOps(), Card(id="x", path=tmp_path, pooling=("cls", "max")))
    assert np.abs(both[:, :WIDTH] - RECORD["vectors"]["cls"]).max() < 1e-5
    assert np.abs(both[:, WIDTH:] - RECORD["vectors"]["max"]).max() < 1e-5


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([pooling("mean"), ("CNN", {})], r"module `sentence_transformers\.models\.CNN` is not"),
        ([dense(WIDTH, 4, "Tanh"), pooling("mean")], "`Dense` comes before the pooling"),
        ([pooling("mean"), pooling("max")], "`Pooling` comes twice"),
        (
            [pooling("mean"), dense(WIDTH, 1, "Tanh", module_output_name="scores"), NORMALIZE],
            "a module comes after the one that gives scores",
        ),
        (
            [pooling("mean"), dense(WIDTH, 1, "Tanh", module_output_name="sores")],
            "`module_output_name` = `sores` is not supported",
        ),
        ([pooling("mean"), dense(WIDTH, 4, "Softplus")], r"activation `torch\S+Softplus` is not"),
        (
            [pooling("mean"), dense(4, 4, "Tanh", activation_function="my.Tanh")],
            r"activation `my\.Tanh`",
        ),
        ([pooling("mean"), ("LayerNorm", {"dimension": 0})], "`dimension` must be a size"),
        (
            [pooling("mean"), ("Normalize", {"module_input_name": "token_embeddings"})],
            "`module_input_name` = `token_embeddings`",
        ),
    ],
)
def test_a_module_we_do_not_have_is_refused_by_name(
    tmp_path: Path, modules: list[Module], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(write(tmp_path, *modules))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ({"type": "custom_st.Transformer"}, r"module `custom_st\.Transformer` is not supported"),
        ({"type": "sentence_transformers.models.Pooling"}, "first module must be a Transformer"),
        ({"type": "sentence_transformers.models.Transformer", "path": "../x"}, "leaves the folder"),
    ],
)
def test_code_and_files_from_elsewhere_are_refused(
    tmp_path: Path, first: dict[str, str], said: str
) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "modules.json", [first])
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(Card(id="x", path=tmp_path))


def test_a_dense_layer_without_its_weights_is_refused_by_name(tmp_path: Path) -> None:
    card = write(tmp_path, pooling("mean"), dense(WIDTH, 4, "Tanh"), NORMALIZE)
    (tmp_path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"2_Dense: model\.safetensors is missing"):
        load_encoder(NumpyOps(), open_checkpoint(card))


def test_a_transformer_in_a_folder_of_its_own_is_found_there(tmp_path: Path) -> None:
    write_bert(tmp_path / "0_Transformer", pooling=None)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    modules.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    write_json(tmp_path / "modules.json", modules)
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    vectors = encode(NumpyOps(), Card(id="x", path=tmp_path))
    assert np.abs(vectors - RECORD["vectors"]["mean"]).max() < 1e-5
