"""What config.json says of a decoder: which tokens each token sees, and how wide its heads are."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.models import gemma3_text, llama
from embedsvc.inference.models.decoder import Config
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.tiny import CASES, GEMMA3, LLAMA


def config_of(**fields: Any) -> Config:
    """That of a Llama, or of another kind, with these fields."""
    if fields.get("model_type") == "gemma3_text":
        return msgspec.convert(GEMMA3 | fields, gemma3_text.Config)
    return msgspec.convert(LLAMA | fields, llama.Config)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_causal": False},
        {"use_bidirectional_attention": True},
        {"model_type": "llama_bidirec"},
        {"model_type": "eurobert"},
        {"architectures": ["LlamaBidirectionalModel"]},
        {"architectures": ["LlamaBidirectionalForSequenceClassification"]},
        {"model_type": "qwen3", "architectures": ["Qwen3BidirectionalModel"]},
        {"model_type": "bidirectional_pplx_qwen3", "architectures": ["PPLXQwen3Model"]},
        {
            "architectures": ["Qwen3ForCausalLM"],
            "auto_map": {"AutoModel": "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"},
        },
        {"model_type": "gemma3_text", "is_causal": False, "use_bidirectional_attention": False},
        {"model_type": "gemma3_text", "use_bidirectional_attention": True},
    ],
)
def test_a_flag_a_kind_or_a_class_has_each_token_see_those_that_follow(
    fields: dict[str, Any],
) -> None:
    assert not config_of(**fields).causal


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"is_causal": True},
        {"is_causal": None, "use_bidirectional_attention": None, "architectures": None},
        {"architectures": ["LlamaForCausalLM"]},
        {"model_type": "gemma3_text", "use_bidirectional_attention": False},
    ],
)
def test_a_decoder_is_causal_where_nothing_says_otherwise(fields: dict[str, Any]) -> None:
    assert config_of(**fields).causal


WINDOWS = {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}
ALL, SOME = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("fields", "window", "kinds"),
    [
        # A token counts itself where it sees those before it alone, as in transformers.
        ({"model_type": "mistral", "sliding_window": 6}, 5, (SOME, SOME)),
        ({"model_type": "mistral", "sliding_window": 6, "is_causal": False}, 6, (SOME, SOME)),
        ({"model_type": "mistral", "sliding_window": None}, None, (ALL, ALL)),
        ({"model_type": "qwen2", **WINDOWS}, 5, (ALL, SOME)),
        ({"model_type": "qwen3", **WINDOWS, "layer_types": [SOME, ALL]}, 5, (SOME, ALL)),
        ({"model_type": "qwen2", **WINDOWS, "use_sliding_window": False}, None, (ALL, ALL)),
        ({"model_type": "llama", "sliding_window": 6}, None, (ALL, ALL)),
    ],
)
def test_windows_are_those_that_a_kind_heeds(
    fields: dict[str, Any], window: int | None, kinds: tuple[str, ...]
) -> None:
    config = config_of(**fields)
    assert isinstance(config, llama.Config)
    assert (config.window, config.kinds()) == (window, kinds)


def test_heads_are_as_wide_as_stated_else_an_equal_part_of_the_width() -> None:
    assert (config_of().head_size, config_of().kv_heads) == (8, 3)
    stated = config_of(head_dim=12, num_key_value_heads=1)
    assert (stated.head_size, stated.kv_heads) == (12, 1)


def test_tables_of_positions_in_old_checkpoints_are_not_read(tmp_path: Path) -> None:
    case = CASES["llama-class"]
    case.write(tmp_path)
    old = {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    save_file(case.tensors() | old, tmp_path / "model.safetensors")
    encoder = load_encoder(NumpyOps(cores=1), open_checkpoint(Card(id="x", path=tmp_path)))
    assert np.isfinite(encoder.encode(case.texts())).all()
