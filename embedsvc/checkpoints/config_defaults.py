"""The values that an old or terse config.json leaves out.

Transformers 5 has a value for each, by `model_type`; for a type that it does not have (`new`), the
authors' code has them. `tests/reference/defaults.json` records transformers' values.
"""

from typing import Any

_BERT = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = _BERT | {"pad_token_id": 1}
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_theta": 10_000.0,
}
_QWEN2 = _LLAMA | {
    "vocab_size": 151936,
    "num_key_value_heads": 32,
    "intermediate_size": 22016,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
}
_QWEN3 = _QWEN2 | {"head_dim": 128}

DEFAULTS: dict[str, dict[str, Any]] = {
    "albert": _BERT
    | {
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
    },
    "bert": _BERT,
    "bidirectional_pplx_qwen3": _QWEN3,
    "camembert": _ROBERTA,
    "deberta-v2": {
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    },
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
        "activation": "gelu",
    },
    "electra": _BERT
    | {
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    "embedding_gemma2_text": {
        "vocab_size": 262144,
        "hidden_size": 512,
        "num_hidden_layers": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "intermediate_size": 2048,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "hidden_size_per_layer_input": 512,
        "embedding_dim": 768,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4,
        "per_layer_config": {
            str(index): {"head_dim": 512, "num_key_value_heads": 1} for index in (5, 11, 17, 23)
        },
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    },
    "eurobert": _LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
    },
    "gemma3_text": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "gte": _BERT
    | {
        "vocab_size": 250048,
        "max_position_embeddings": 8192,
        "type_vocab_size": 1,
        "rope_theta": 160_000.0,
    },
    "jina_embeddings_v3": _BERT
    | {
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 8194,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "rope_theta": 20_000.0,
    },
    "llama": _LLAMA,
    "llama_bidirec": _LLAMA,
    "mistral": _LLAMA
    | {
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "ministral3": _LLAMA
    | {
        "vocab_size": 131072,
        "num_hidden_layers": 34,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
    "modernbert": {
        "vocab_size": 50368,
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "local_attention": 128,
        "hidden_activation": "gelu",
    },
    "mpnet": {key: value for key, value in _ROBERTA.items() if key != "type_vocab_size"}
    | {"vocab_size": 30527},
    "new": _BERT
    | {
        "vocab_size": 30528,
        "max_position_embeddings": 2048,
        "type_vocab_size": 1,
        "rope_theta": 10_000.0,
    },
    "nomic_bert": {
        "vocab_size": 30528,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 2048,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "silu",
        "rope_theta": 1000.0,
    },
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "roberta": _ROBERTA | {"vocab_size": 50265},
    "xlm-roberta": _ROBERTA,
}

SPELLINGS: dict[str, dict[str, str]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
    },
    "nomic_bert": {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "layer_norm_epsilon": "layer_norm_eps",
        "rotary_emb_base": "rope_theta",
    },
}
"""Other names of keys, by `model_type`, and the names that are used here."""


TEXT_PARTS = {"embedding_gemma2": "embedding_gemma2_text"}
"""Kinds of models that take images and sounds as well, and the kind of the part for texts, which
`text_config` describes."""


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json under the names that are used here, with the values that it leaves out.

    >>> completed({"model_type": "nomic_bert", "n_layer": 3})["num_hidden_layers"]
    3
    >>> completed({"model_type": "nomic_bert"})["rope_theta"]
    1000.0
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return config
    if kind in TEXT_PARTS and isinstance(config.get("text_config"), dict):
        return completed(config | config["text_config"] | {"model_type": TEXT_PARTS[kind]})
    spellings, defaults = SPELLINGS.get(kind, {}), DEFAULTS.get(kind, {})
    respelled = {spellings[name]: value for name, value in config.items() if name in spellings}
    if "n_positions" in config:  # is stated instead, and may differ from transformers' default
        defaults = {k: v for k, v in defaults.items() if k != "max_position_embeddings"}
    return defaults | respelled | config
