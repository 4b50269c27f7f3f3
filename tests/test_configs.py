"""What a config.json may say: each value within bounds, and in keeping with the others."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.config_defaults import DEFAULTS, completed
from embedsvc.errors import CheckpointError, DoesNotFit
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.models import ARCHITECTURES, find_architecture, read_config
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import make_plan
from tests.support.checkpoints import write_bert, write_json
from tests.support.tiny import CASES
from tests.support.tolerance import within

RECORDED = json.loads((Path(__file__).parent / "reference" / "defaults.json").read_text())
COUNTS = (
    ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    ("intermediate_size", "max_position_embeddings", "dim", "n_layers", "n_heads", "hidden_dim"),
    ("n_embd", "n_layer", "n_head", "n_inner", "n_positions", "head_dim", "num_key_value_heads"),
    ("local_attention", "sliding_window", "pad_vocab_size_multiple", "moe_top_k", "num_experts"),
    ("global_attn_every_n_layers",),
)
WRONG_COUNTS = (0, -1, -(10**30), 10**9 + 1, 10**30, 1.5, "2", True, None, [], {})
EPSILONS = ("layer_norm_eps", "norm_eps", "rms_norm_eps", "layer_norm_epsilon")
WRONG_EPSILONS = (0, -1e-5, 1, 1e300, "1e-5", None, True, [])
MAY_BE = [
    ["local_attention", 10**9 + 1],  # no window at all
    ["sliding_window", 10**9 + 1],
    ["n_positions", 10**9 + 1],  # no more than is asked for is made
    ["n_positions", 0],
    ["max_position_embeddings", 10**9 + 1],
    ["head_dim", None],
    ["num_key_value_heads", None],
    ["sliding_window", None],
]
"""What is no mistake where it can be read."""


def load(ops: Ops, folder: Path, config: dict[str, Any]) -> np.ndarray:
    write_json(folder / "config.json", config)
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    return load_encoder(ops, checkpoint).encode([np.arange(4, 20, dtype=np.int32)])


def outcome(ops: Ops, folder: Path, config: dict[str, Any]) -> np.ndarray | str:
    """The vectors, or what is said in place of them."""
    try:
        return load(ops, folder, config)
    except CheckpointError as error:
        return str(error)


@pytest.mark.parametrize("name", CASES)
def test_a_count_out_of_bounds_is_refused_by_file(tmp_path: Path, name: str) -> None:
    config, ops = CASES[name].config, NumpyOps(cores=1)
    CASES[name].write(tmp_path)
    if config["model_type"] == "static":
        return
    expected = load(ops, tmp_path, config)
    tried = 0
    for keys, values in (*((some, WRONG_COUNTS) for some in COUNTS), (EPSILONS, WRONG_EPSILONS)):
        for key in (key for key in keys if key in config):
            for value in values:
                tried += 1
                found = outcome(ops, tmp_path, config | {key: value})
                if isinstance(found, str):
                    assert "config.json: " in found or "tensor `" in found
                    continue
                assert [key, value] in MAY_BE
                window = key in ("local_attention", "sliding_window") or (
                    key == "max_position_embeddings" and name.startswith("deberta")  # of buckets
                )
                assert np.isfinite(found).all() if window else np.array_equal(found, expected)
    assert tried > 50


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("bert", {"num_attention_heads": 5}, "`hidden_size` of 24 is not a multiple of"),
        ("distilbert", {"n_heads": 7}, "`dim` of 24 is not a multiple of `n_heads`, 7"),
        ("mpnet", {"num_attention_heads": 7}, "is not a multiple of `num_attention_heads`, 7"),
        ("mpnet", {"max_position_embeddings": 2}, "`max_position_embeddings` of 2 leave none"),
        ("jina_bert", {"num_attention_heads": 7}, "not a multiple of `num_attention_heads`, 7"),
        ("gte", {"num_attention_heads": 7}, "not a multiple of `num_attention_heads`, 7"),
        ("gte", {"num_attention_heads": 8}, "heads of 3 cannot be turned by halves"),
        ("modernbert", {"num_attention_heads": 8}, "heads of 3 cannot be turned by halves"),
        ("modernbert-transformers", {"layer_types": ["full_attention"]}, "`layer_types` are 1,"),
        ("nomic_bert", {"n_head": 7}, "not a multiple of `num_attention_heads`, 7"),
        ("nomic_bert", {"n_head": 8}, "heads of 3 cannot be turned by halves"),
        ("nomic_bert-moe", {"moe_top_k": 0}, "`moe_top_k` of 0 does not go with"),
        ("nomic_bert-moe", {"moe_top_k": 900}, "`moe_top_k` of 900 does not go with"),
        ("nomic_bert-moe", {"num_experts": 0}, "does not go with `num_experts`, 0"),
        ("qwen3", {"num_key_value_heads": 3}, "not a multiple of `num_key_value_heads`, 3"),
        ("qwen3", {"num_key_value_heads": 8}, "not a multiple of `num_key_value_heads`, 8"),
        ("qwen3", {"head_dim": 7}, "heads of 7 cannot be turned by halves"),
        ("qwen3", {"layer_types": ["full_attention"] * 3}, "`layer_types` are 3, not one for"),
        ("gemma3_text", {"num_key_value_heads": 2}, "not a multiple of `num_key_value_heads`, 2"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
        ("gemma3_text", {"rope_theta": -1.0}, "rope_theta"),
        ("xlm-roberta", {"pad_token_id": -100_000}, "pad_token_id"),
        ("xlm-roberta", {"pad_token_id": 65}, "`pad_token_id` of 65 leaves no position"),
        ("xlm-roberta", {"pad_token_id": 10**9}, "`pad_token_id` of 1000000000 leaves no"),
        ("bert", {"quantization": [4]}, "`quantization` must be an object"),
        ("bert", {"model_type": 7}, "does not say its `model_type`"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size"),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_name(
    tmp_path: Path, name: str, change: dict[str, Any], said: str
) -> None:
    CASES[name].write(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(NumpyOps(cores=1), tmp_path, CASES[name].config | change)
    assert said in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "01", "0x10"])
def test_numbers_that_json_does_not_have_are_refused_by_file(tmp_path: Path, literal: str) -> None:
    file = write_bert(tmp_path) / "config.json"
    file.write_text(file.read_text().replace("1e-12", literal))
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        open_checkpoint(Card(id="x", path=tmp_path))


# --- positions ----------------------------------------------------------------------------------

ROTARY = ("gte", "modernbert", "qwen3", "gemma3_text", "nomic_bert-transformers", "jina_bert")


@pytest.mark.parametrize("name", ROTARY)
def test_tables_are_made_for_texts_there_can_be_not_for_positions_that_are_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    CASES[name].write(tmp_path)
    ops = NumpyOps(cores=1)
    plain = load(ops, tmp_path, CASES[name].config)
    made: list[int] = []
    for kind in ("float32", "array"):
        keep = getattr(ops, kind)
        monkeypatch.setattr(ops, kind, lambda x, keep=keep: made.append(x.size) or keep(x))
    claimed = CASES[name].config | {"max_position_embeddings": 100_000_000}
    assert np.array_equal(load(ops, tmp_path, claimed), plain)
    assert max(made) < 10_000


@pytest.mark.parametrize("name", ROTARY)
def test_a_model_whose_tables_do_not_fit_is_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    CASES[name].write(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 2_000_000_000})
    claimed = CASES[name].config | {"max_position_embeddings": 2_000_000_000}
    write_json(tmp_path / "config.json", claimed)
    card = Card(id="x", path=tmp_path, max_tokens=2_000_000_000)
    ops = NumpyOps(cores=1)
    ops.memory, ops.pass_memory = 8 << 30, 2 << 30
    checkpoint = open_checkpoint(card)
    assert make_plan(checkpoint, "float32", backend="numpy").size > 8 << 30
    monkeypatch.setattr(ops, "array", None)
    with pytest.raises(DoesNotFit, match=r"needs \S+ GB, and the device has 6\.44 GB for weights"):
        load_encoder(ops, checkpoint)


@pytest.mark.parametrize("name", CASES)
def test_a_text_of_one_token_may_be_all_that_a_model_takes(
    ops: Ops, tmp_path: Path, name: str
) -> None:
    CASES[name].write(tmp_path)
    checkpoint = open_checkpoint(Card(id="x", path=tmp_path, max_tokens=1))
    alone = load_encoder(ops, checkpoint).encode([np.array([7], np.int32)])
    whole = load_encoder(ops, open_checkpoint(Card(id="x", path=tmp_path)))
    assert np.abs(alone - whole.encode([np.array([7], np.int32)])).max() < within(1e-6, ops)


# --- what is left out ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DEFAULTS)
def test_every_value_left_out_is_the_one_that_transformers_takes(kind: str) -> None:
    """Of each field that a pass reads and transformers has."""
    whole = completed({"model_type": kind})
    config = read_config(ARCHITECTURES[kind], whole)  # nothing else is needed
    if kind not in RECORDED["values"]:  # which transformers lacks
        return
    theirs = RECORDED["values"][kind]
    compared = 0
    for field in msgspec.structs.fields(config):
        if field.name in theirs and field.name != "rope_parameters":
            found = getattr(config, field.name)
            if field.name == "head_dim" and found is None:
                found = config.head_size
            if field.name == "num_key_value_heads" and found is None:
                found = config.num_attention_heads
            assert found == theirs[field.name], field.name
            compared += 1
    assert compared >= 6
    bases = theirs.get("rope_parameters", {})
    if "rope_theta" in bases:
        assert theta(config) == bases["rope_theta"]
    for layers, base in bases.items():
        if layers.endswith("attention"):
            assert theta(config, layers) == base["rope_theta"]


def theta(config: Any, *layers: str) -> float:
    """The base of the rotary positions of all layers, or of those of a kind."""
    if not hasattr(config, "rope"):
        return config.theta(*layers) if layers else config.rope_theta
    return config.rope(*layers).theta if layers else config.rope.theta


@pytest.mark.parametrize("name", CASES)
def test_a_config_may_leave_out_what_is_usual(ops: Ops, tmp_path: Path, name: str) -> None:
    config = CASES[name].config
    CASES[name].write(tmp_path)
    plain = load(ops, tmp_path, config)
    usual = DEFAULTS.get(config["model_type"], {})
    terse = {k: v for k, v in config.items() if k not in usual or v != usual[k]}
    assert len(terse) < len(config) or not usual or "n_embd" in config
    assert np.array_equal(load(ops, tmp_path, terse), plain)


@pytest.mark.parametrize(
    ("of_class", "kind"),
    [
        ("BertModel", "bert"),
        ("BertForMaskedLM", "bert"),
        ("RobertaModel", "roberta"),
        ("XLMRobertaModel", "xlm-roberta"),
        ("DistilBertForMaskedLM", "distilbert"),
        ("CamembertModel", "camembert"),
        ("MPNetForMaskedLM", "mpnet"),
    ],
)
def test_files_older_than_model_type_are_known_by_their_class(
    tmp_path: Path, of_class: str, kind: str
) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "config.json", {"architectures": [of_class]})
    assert open_checkpoint(Card(id="x", path=tmp_path)).model_type == kind


def test_a_class_that_is_not_known_does_not_make_a_kind(tmp_path: Path) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "config.json", {"architectures": ["BertGenerationEncoder", 7]})
    with pytest.raises(CheckpointError, match="does not say its `model_type`"):
        open_checkpoint(Card(id="x", path=tmp_path))


def test_other_names_of_a_value_are_known() -> None:
    by_name = completed({"model_type": "distilbert", "hidden_size": 24, "num_attention_heads": 3})
    assert (by_name["dim"], by_name["n_heads"], by_name["n_layers"]) == (24, 3, 6)
    nomic = completed({"model_type": "nomic_bert", "n_embd": 24, "n_positions": 512})
    architecture = find_architecture("nomic_bert", nomic)
    assert architecture is not None
    config = read_config(architecture, nomic)
    assert (config.hidden_size, config.longest) == (24, 512)
