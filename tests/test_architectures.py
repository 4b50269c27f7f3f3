"""Every architecture, on a tiny checkpoint, against what its reference makes of it.

`tests/reference/architectures.py` made the recordings.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.models import ARCHITECTURES, EXCEED_FLOAT16, find_architecture
from embedsvc.inference.ops.base import Ops, Read, rope_table
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_json
from tests.support.hidden_states import hidden_states
from tests.support.tiny import CASES, Case
from tests.support.tolerance import within

RECORDED = Path(__file__).parent / "reference" / "architectures"
OPTIONAL = ("mapping", "weights")
"""Tensors that a checkpoint may lack."""
TELLING = ("layer_norm_q.weight", "embeddings")
"""Tensors that tell one kind of checkpoint from another, which is what is missed without them."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: case.write(tmp_path_factory.mktemp(name)) for name, case in CASES.items()}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    """Each case: a test that takes this runs on all."""
    return request.param


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


@pytest.fixture
def checkpoint(name: str, folders: dict[str, Path]) -> Checkpoint:
    return open_checkpoint(Card(id=name, path=folders[name]))


@cache
def recorded(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden states (N, D) of all texts, end to end, and vectors (B, D)."""
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as arrays:
        return arrays["hidden"], arrays["vectors"]


def test_positions_far_on_turn_heads_as_transformers_turns_them() -> None:
    with np.load(RECORDED / "rotations.npz", allow_pickle=False) as rotations:
        assert len(rotations.files) >= 4
        for name, expected in rotations.items():
            size, base, length = map(int, name.split())
            assert np.abs(rope_table(size, base, length)[-1] - expected).max() <= 2e-6


def test_every_architecture_has_a_case() -> None:
    tried = {
        find_architecture(case.config["model_type"], case.config).__name__
        for case in CASES.values()
    }
    assert tried == {architecture.__name__ for architecture in ARCHITECTURES.values()}


def test_hidden_states_equal_the_reference(
    ops: Ops, name: str, case: Case, checkpoint: Checkpoint
) -> None:
    texts = case.texts()
    expected, _ = recorded(name)
    assert np.abs(hidden_states(ops, checkpoint, texts) - expected).max() <= within(1e-5, ops)


@pytest.mark.parametrize("read", ["cls", "last_token"])
def test_the_one_row_that_is_read_of_each_text_equals_the_reference(
    ops: Ops, name: str, case: Case, checkpoint: Checkpoint, read: Read
) -> None:
    texts = case.texts()
    whole, _ = recorded(name)
    ends = np.cumsum([len(text) for text in texts])
    expected = whole[ends - 1 if read == "last_token" else np.array([0, *ends[:-1]])]
    together = hidden_states(ops, checkpoint, texts, read)
    alone = [hidden_states(ops, checkpoint, [text], read) for text in (texts[0], texts[-1])]
    assert np.abs(together - expected).max() <= within(1e-5, ops)
    assert np.abs(np.concatenate(alone) - expected[[0, -1]]).max() <= within(1e-5, ops)


def test_vectors_equal_the_reference_alone_and_in_a_batch(
    ops: Ops, name: str, case: Case, checkpoint: Checkpoint
) -> None:
    encoder = load_encoder(ops, checkpoint)
    _, expected = recorded(name)
    together = encoder.encode(case.texts())
    alone = np.concatenate([encoder.encode([text]) for text in case.texts()])
    assert np.abs(together - expected).max() <= within(1e-5, ops)
    assert np.abs(alone - expected).max() <= within(1e-5, ops)


def test_padding_changes_no_vector(name: str, case: Case, checkpoint: Checkpoint) -> None:
    encoder = load_encoder(MlxOps("float32"), checkpoint)
    *short, long = case.texts()
    alone = np.concatenate([encoder.encode([text]) for text in short])
    padded = np.concatenate([encoder.encode([text, long])[:1] for text in short])
    assert np.abs(padded - alone).max() <= within(2e-6)


def test_half_precision_stays_near_the_reference(
    name: str, case: Case, checkpoint: Checkpoint
) -> None:
    half = "bfloat16" if checkpoint.model_type in EXCEED_FLOAT16 else "float16"
    vectors = load_encoder(MlxOps(half), checkpoint).encode(case.texts())
    _, expected = recorded(name)
    assert (1 - np.einsum("bd,bd->b", vectors, expected)).max() <= 2e-3


def test_float16_is_refused_where_it_does_not_suffice(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(Card(id="x", path=folders["gemma3_text"]))
    with pytest.raises(CheckpointError, match="exceeds float16"):
        load_encoder(MlxOps("float16"), checkpoint)


def test_a_missing_or_misshapen_tensor_is_refused_by_name(
    name: str, case: Case, tmp_path: Path
) -> None:
    ops, tensors = NumpyOps(cores=1), case.tensors()
    case.write(tmp_path)
    for tensor in tensors:
        if "pooler." in tensor or tensor in OPTIONAL:
            continue
        rest = {key: value for key, value in tensors.items() if key != tensor}
        with pytest.raises(CheckpointError, match=r"tensor `\S+` is (missing|not known)") as error:
            load_with(ops, rest, tmp_path)
        if not tensor.endswith(TELLING):
            assert tensor in str(error.value)
        larger = np.concatenate([tensors[tensor]] * 2)
        if name in ("static", "model2vec"):  # whose vocabulary no config states
            continue
        with pytest.raises(CheckpointError, match="has shape") as error:
            load_with(ops, rest | {tensor: larger}, tmp_path)
        assert f"`{tensor}`" in str(error.value)


def test_a_tensor_that_is_not_known_is_refused_by_name(
    name: str, case: Case, tmp_path: Path
) -> None:
    case.write(tmp_path)
    unknown = {"encoder.adapter.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(CheckpointError, match=r"`encoder.adapter.weight` is not known"):
        load_with(NumpyOps(cores=1), case.tensors() | unknown, tmp_path)


def load_with(ops: Ops, tensors: dict[str, NDArray[Any]], folder: Path) -> Any:
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    return load_encoder(ops, checkpoint).encode([np.zeros(2, np.int32)])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("xlm-roberta", {"hidden_act": "celu"}, "'celu'"),
        ("xlm-roberta", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("distilbert", {"activation": "glu"}, "'glu'"),
        ("mpnet", {"relative_attention_num_buckets": 64}, r"relative_attention_num_buckets"),
        ("nomic_bert", {"rotary_emb_interleaved": True}, "`rotary_emb_interleaved` of True"),
        (
            "nomic_bert-transformers",
            {"rope_parameters": {"rope_theta": 1.0, "rope_type": "yarn"}},
            "'yarn'",
        ),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, "`rotary_emb_fraction` of 0.5"),
        ("nomic_bert", {"prenorm": True}, "`prenorm` of True"),
        ("nomic_bert", {"activation_function": "seGLU"}, "'seGLU'"),
        ("nomic_bert-transformers", {"hidden_act": "celu"}, "'celu'"),
        ("nomic_bert-transformers", {"head_dim": 6}, "`head_dim` of 6"),
        ("nomic_bert-moe", {"moe_normalize_expert_weights": True}, "`moe_normalize"),
        ("gte", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, "mixed_b"),
        ("gte", {"position_embedding_type": "absolute"}, "'absolute'"),
        ("gte", {"logn_attention_scale": True}, "`logn_attention_scale` of True"),
        ("jina_bert", {"feed_forward_type": "original"}, "'original'"),
        ("modernbert", {"hidden_activation": "seGLU"}, "'seGLU'"),
        ("modernbert", {"layer_types": ["chunked"] * 4}, "'chunked'"),
        ("qwen3", {"rope_scaling": {"type": "longrope"}}, r"'longrope'.*rope_scaling"),
        ("qwen3", {"rope_scaling": {"type": "linear"}}, "`factor` is missing"),
        ("qwen3", {"rope_scaling": {"type": "proportional"}}, "`rope_type` of proportional"),
        ("qwen3", {"rope_parameters": {"rope_theta": 1.0, "rope_type": "yarn"}}, "`rope_theta` of"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "`layer_types` has windows"),
        ("llama", {"partial_rotary_factor": 0.5}, "`partial_rotary_factor` of 0.5"),
        ("llama", {"hidden_act": "snake"}, "'snake'"),
        ("eurobert", {"num_attention_heads": 5}, "`hidden_size` of 24"),
        ("gemma3_text", {"attention_bias": True}, "`attention_bias` of True"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused_by_name(
    tmp_path: Path, name: str, change: dict[str, Any], said: str
) -> None:
    CASES[name].write(tmp_path)
    write_json(tmp_path / "config.json", CASES[name].config | change)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{said}"):
        load_encoder(NumpyOps(cores=1), open_checkpoint(Card(id="x", path=tmp_path)))


@pytest.mark.parametrize(
    ("name", "change", "longest"),
    [
        ("xlm-roberta", {}, 64),
        ("mpnet", {}, 160),
        ("ministral3", {}, 64),
        ("nomic_bert", {"rotary_scaling_factor": 2.0, "max_trained_positions": 17}, 17),
    ],
)
def test_texts_beyond_the_last_position_are_refused(
    tmp_path: Path, name: str, change: dict[str, Any], longest: int
) -> None:
    CASES[name].write(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {})
    write_json(tmp_path / "config.json", CASES[name].config | change)
    ops = NumpyOps(cores=1)
    card = Card(id="x", path=tmp_path, max_tokens=longest + 1)
    with pytest.raises(CheckpointError, match=f"max_tokens = {longest}"):
        load_encoder(ops, open_checkpoint(card))
    encoder = load_encoder(ops, open_checkpoint(replace(card, max_tokens=longest)))
    texts = [text for text in CASES[name].texts() if len(text) <= longest]
    _, expected = recorded(name)
    assert np.abs(encoder.encode(texts) - expected[: len(texts)]).max() <= 1e-5
