"""A tiny random checkpoint of every architecture, in Hub layout, the same each time it is written.

`tests/reference/architectures.py` writes them too, and records what the reference makes of them.
The file is long because it is a list: the configuration of every architecture.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.checkpoints import write_json, write_pooling, write_tokenizer
from tests.support.shapes import (
    EXPERTS,
    GEMMA3_NORMS,
    HEADS,
    INNER,
    QWEN3_NORMS,
    VOCABULARY,
    WIDTH,
    Shapes,
    albert_shapes,
    bert_shapes,
    deberta_shapes,
    decoder_layer,
    decoder_shapes,
    distilbert_layer,
    electra_shapes,
    gemma2_embedding_shapes,
    gte_shapes,
    jina_code_layer,
    jina_like,
    jina_shapes,
    jina_v3_shapes,
    layers_of,
    linear,
    llama_shapes,
    modernbert_shapes,
    mpnet_layer,
    narrow_embeddings,
    nomic_layer,
    nomic_moe_shapes,
    nomic_shapes,
    norm,
)

LENGTHS = (1, 2, 3, 9, 16, 17, 33)
"""Of the texts, to which one of the model's full length is added."""


@dataclass(frozen=True)
class Case:
    """A checkpoint: config.json as the Hub has it, and its tensors."""

    config: dict[str, Any]
    shapes: Shapes
    pooling: str = "mean_tokens"
    longest: int = 64
    reference: dict[str, Any] = field(default_factory=dict[str, Any])
    """What config.json has instead where transformers is to read it."""
    integers: tuple[str, ...] = ()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Its random tensors: scales of norms about 1, weights that keep the size of what they
        multiply, all else about 0."""
        random = np.random.default_rng(11)
        return {name: self._tensor(random, name, shape) for name, shape in self.shapes.items()}

    def _tensor(
        self, random: np.random.Generator, name: str, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        if name in self.integers:
            return random.integers(0, VOCABULARY // 2, shape)
        value = random.normal(size=shape).astype(np.float32)
        if len(shape) == 2:
            return value * np.float32(0.8 if shape[0] == VOCABULARY else shape[1] ** -0.5)
        less_one = self.config["model_type"] == "gemma3_text"
        about = 1 if name.endswith(("weight", "scalar")) and not less_one else 0
        return about + value * np.float32(0.2)

    def texts(self) -> list[NDArray[np.int32]]:
        """Token ids; none is the padding token's."""
        random = np.random.default_rng(5)
        return [
            random.integers(4, VOCABULARY, n).astype(np.int32) for n in (*LENGTHS, self.longest)
        ]

    def write(self, folder: Path) -> Path:
        """The checkpoint, with a pooling and a normalise module."""
        write_json(folder / "config.json", self.config)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": self.longest})
        write_pooling(folder, self.pooling)
        write_tokenizer(folder)
        save_file(self.tensors(), folder / "model.safetensors")
        return folder


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
}
BERT = SIZES | {
    "model_type": "bert",
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
DEBERTA = SIZES | {
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "hidden_act": "gelu",
    "pad_token_id": 0,
    "relative_attention": True,
    "position_buckets": 12,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
NOMIC = {
    "model_type": "nomic_bert",
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": HEADS,
    "n_inner": INNER,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-12,
    "type_vocab_size": 2,
    "pad_vocab_size_multiple": 4,
    "activation_function": "swiglu",
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "causal": False,
    "prenorm": False,
    "parallel_block": False,
    "use_rms_norm": False,
    "scale_attn_weights": True,
}
NOMIC_TRANSFORMERS = SIZES | {
    "model_type": "nomic_bert",
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "silu",
    "head_dim": 8,
    "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
}
NOMIC_MOE = NOMIC | {
    "activation_function": "gelu",
    "type_vocab_size": 1,
    "rotary_emb_base": 10000.0,
    "layer_norm_epsilon": 1e-5,
    "qkv_proj_bias": True,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "num_experts": EXPERTS,
    "moe_top_k": 2,
    "moe_every_n_layers": 2,
    "moe_normalize_expert_weights": False,
    "expert_choice_router": False,
    "num_shared_experts": 0,
}
GTE = SIZES | {
    "model_type": "new",
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "hidden_act": "gelu",
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_theta": 20000,
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
}
JINA = BERT | {"position_embedding_type": "alibi", "feed_forward_type": "geglu"}
MODERNBERT = SIZES | {
    "model_type": "modernbert",
    "num_hidden_layers": 4,
    "norm_eps": 1e-5,
    "local_attention": 8,
    "hidden_activation": "gelu",
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "pad_token_id": 0,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
}
QWEN3 = SIZES | {
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_theta": 1000000,
    "rope_scaling": None,
    "attention_bias": False,
    "use_sliding_window": False,
}
LLAMA = SIZES | {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 500.0,
    "rope_scaling": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA3 = SIZES | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 10,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": True,
    "attention_bias": False,
    "pad_token_id": 0,
}
BY_LAYER = {
    "full_attention": {"rope_theta": 80000.0, "rope_type": "default"},
    "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
}
QWEN3_SHAPES = decoder_shapes(2, decoder_layer(4, 2, 8, QWEN3_NORMS))
GEMMA3_SHAPES = decoder_shapes(3, decoder_layer(3, 1, 8, GEMMA3_NORMS))

CASES = {
    "bert": Case(BERT, bert_shapes(64, 2), pooling="cls_token"),
    "bert-prelu": Case(
        BERT | {"hidden_act": "prelu"},
        bert_shapes(64, 2)
        | {f"encoder.layer.{i}.intermediate.intermediate_act_fn.weight": (1,) for i in range(2)},
    ),
    "xlm-roberta": Case(
        BERT
        | {
            "model_type": "xlm-roberta",
            "max_position_embeddings": 66,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "layer_norm_eps": 1e-5,
        },
        bert_shapes(66, 1),
    ),
    "albert": Case(
        BERT
        | {
            "model_type": "albert",
            "num_hidden_layers": 5,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "embedding_size": 12,
            "hidden_act": "gelu_new",
        },
        albert_shapes(12, 2, 2),
    ),
    "electra": Case(
        BERT | {"model_type": "electra", "embedding_size": 12},
        electra_shapes(12),
        pooling="cls_token",
    ),
    "electra-wide": Case(
        BERT | {"model_type": "electra", "embedding_size": WIDTH}, electra_shapes(WIDTH)
    ),
    "deberta-v2": Case(
        DEBERTA,
        deberta_shapes(shared=True, distances=24) | norm("encoder.LayerNorm"),
        pooling="cls_token",
        longest=60,
    ),
    "deberta-v2-plain": Case(
        {k: v for k, v in DEBERTA.items() if k not in ("norm_rel_ebd", "share_att_key")}
        | {
            "position_buckets": -1,
            "max_relative_positions": 30,
            "position_biased_input": True,
            "type_vocab_size": 2,
            "embedding_size": 12,
            "pos_att_type": "c2p|p2c",
        },
        {
            k: v
            for k, v in deberta_shapes(shared=False, distances=60).items()
            if "embeddings." not in k
        }
        | narrow_embeddings(12, 64, 2)
        | norm("embeddings.LayerNorm")
        | linear("embeddings.embed_proj", 12, WIDTH, bias=False)
        | {"encoder.rel_embeddings.weight": (60, WIDTH)},
    ),
    "deberta-v2-convolution": Case(
        DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2},
        deberta_shapes(shared=True, distances=24)
        | norm("encoder.LayerNorm")
        | {"encoder.conv.conv.weight": (WIDTH, WIDTH // 2, 3), "encoder.conv.conv.bias": (WIDTH,)}
        | norm("encoder.conv.LayerNorm"),
    ),
    "distilbert": Case(
        {
            "model_type": "distilbert",
            "vocab_size": VOCABULARY,
            "dim": WIDTH,
            "n_layers": 2,
            "n_heads": HEADS,
            "hidden_dim": INNER,
            "max_position_embeddings": 64,
            "activation": "gelu",
            "pad_token_id": 0,
        },
        {
            "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
            "embeddings.position_embeddings.weight": (64, WIDTH),
            **norm("embeddings.LayerNorm"),
            **layers_of("transformer.layer.{}", 2, distilbert_layer),
        },
    ),
    "mpnet": Case(
        SIZES
        | {
            "model_type": "mpnet",
            "max_position_embeddings": 162,
            "layer_norm_eps": 1e-5,
            "hidden_act": "relu",
            "pad_token_id": 1,
            "relative_attention_num_buckets": 32,
        },
        {
            "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
            "embeddings.position_embeddings.weight": (162, WIDTH),
            **norm("embeddings.LayerNorm"),
            **layers_of("encoder.layer.{}", 2, mpnet_layer),
            "encoder.relative_attention_bias.weight": (32, HEADS),
            **linear("pooler.dense", WIDTH, WIDTH),
        },
        longest=160,
    ),
    "nomic_bert": Case(
        NOMIC,
        nomic_shapes(nomic_layer, 2),
        reference=NOMIC_TRANSFORMERS,
    ),
    "nomic_bert-geglu": Case(
        NOMIC | {"activation_function": "geglu"},
        nomic_shapes(nomic_layer, 2),
        reference=NOMIC_TRANSFORMERS | {"hidden_act": "gelu"},
    ),
    "nomic_bert-transformers": Case(NOMIC_TRANSFORMERS, nomic_shapes(nomic_layer, 2)),
    "nomic_bert-moe": Case(NOMIC_MOE, nomic_moe_shapes(NOMIC_MOE)),
    "gte": Case(
        GTE,
        gte_shapes(1),
        pooling="cls_token",
        # The same rotation as transformers can spell it.
        reference=SIZES
        | {
            "model_type": "gte",
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "rope_parameters": {
                "rope_theta": 160000.0,
                "rope_type": "linear",
                "factor": 8.0 ** (2 / 8),
            },
        },
    ),
    "gte-transformers": Case(
        SIZES
        | {
            "model_type": "gte",
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "linear", "factor": 1.5},
        },
        gte_shapes(0),
        pooling="cls_token",
    ),
    "jina_bert": Case(JINA, jina_shapes(JINA)),
    "jina_embeddings_v3": Case(
        SIZES
        | {
            "model_type": "jina_embeddings_v3",
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "pad_token_id": 1,
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
        },
        jina_v3_shapes(1),
    ),
    "jina_bert-code": Case(JINA, jina_like(jina_code_layer)),
    "modernbert": Case(MODERNBERT, modernbert_shapes()),
    "modernbert-transformers": Case(
        {k: v for k, v in MODERNBERT.items() if "rope" not in k and "every" not in k}
        | {
            "layer_types": [
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "rope_parameters": BY_LAYER,
            "hidden_activation": "quick_gelu",
        },
        modernbert_shapes(),
        pooling="cls_token",
    ),
    "qwen3": Case(QWEN3, QWEN3_SHAPES, pooling="lasttoken"),
    "qwen3-transformers": Case(
        {k: v for k, v in QWEN3.items() if "rope" not in k}
        | {
            "layer_types": ["full_attention"] * 2,
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
        },
        QWEN3_SHAPES,
        pooling="lasttoken",
    ),
    "qwen3-windows": Case(
        QWEN3
        | {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "attention_bias": True,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
        },
        decoder_shapes(2, decoder_layer(4, 2, 8, QWEN3_NORMS, biases=tuple("qkvo"))),
        pooling="lasttoken",
    ),
    "pplx": Case(
        QWEN3 | {"model_type": "bidirectional_pplx_qwen3", "use_bidirectional_attention": True},
        QWEN3_SHAPES,
        reference=QWEN3 | {"is_causal": False},
    ),
    "qwen2": Case(
        LLAMA
        | {
            "model_type": "qwen2",
            "num_key_value_heads": 1,
            "layer_types": ["sliding_attention", "full_attention"],
            "use_sliding_window": True,
            "sliding_window": 6,
            "is_causal": False,
        },
        llama_shapes(1, biases="qkv"),
    ),
    "llama": Case(
        LLAMA | {"num_key_value_heads": 3, "rope_scaling": LLAMA3},
        llama_shapes(3),
        pooling="lasttoken",
    ),
    "llama-biases": Case(
        LLAMA
        | {
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 12,
            "num_key_value_heads": 1,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"type": "linear", "factor": 2.5},
        },
        llama_shapes(1, size=12, biases="qkvogud"),
        pooling="lasttoken",
    ),
    "llama-class": Case(
        LLAMA | {"architectures": ["LlamaBidirectionalModel"], "rope_scaling": YARN},
        llama_shapes(3),
        reference=LLAMA | {"is_causal": False, "rope_scaling": YARN},
    ),
    "mistral": Case(
        LLAMA | {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": 7},
        llama_shapes(1),
        pooling="lasttoken",
    ),
    "mistral-both-ways": Case(
        {key: value for key, value in LLAMA.items() if "rope" not in key}
        | {
            "model_type": "mistral",
            "num_key_value_heads": 3,
            "sliding_window": 7,
            "is_causal": False,
            "rope_parameters": YARN
            | {"rope_theta": 300.0, "beta_fast": 8, "beta_slow": 2, "attention_factor": 0.7},
        },
        llama_shapes(3),
    ),
    "ministral3": Case(
        {key: value for key, value in LLAMA.items() if "rope" not in key}
        | {
            "model_type": "ministral3",
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 256,
            "is_causal": False,
            "rope_parameters": YARN
            | {
                "original_max_position_embeddings": 64,
                "rope_theta": 900.0,
                "mscale": 1.0,
                "mscale_all_dim": 0.5,
                "llama_4_scaling_beta": 0.1,
                "truncate": False,
            },
        },
        llama_shapes(1, size=16),
    ),
    "eurobert": Case(
        LLAMA
        | {
            "model_type": "eurobert",
            "num_key_value_heads": None,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "mask_token_id": 1,
        },
        llama_shapes(3),
    ),
    "gemma3_text": Case(GEMMA3, GEMMA3_SHAPES),
    "gemma3_text-linear": Case(
        GEMMA3
        | {
            "use_bidirectional_attention": False,
            "is_causal": False,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        GEMMA3_SHAPES,
    ),
    "gemma3_text-transformers": Case(
        {k: v for k, v in GEMMA3.items() if "rope" not in k} | {"rope_parameters": BY_LAYER},
        GEMMA3_SHAPES,
    ),
    "gemma3_text-causal": Case(
        GEMMA3 | {"use_bidirectional_attention": False}, GEMMA3_SHAPES, pooling="lasttoken"
    ),
    "embedding_gemma2_text": Case(
        SIZES
        | {
            "model_type": "embedding_gemma2_text",
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "per_layer_config": {"2": {"head_dim": 16, "num_key_value_heads": 1}},
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "sliding_window": 4,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": 900.0,
                    "partial_rotary_factor": 0.5,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size_per_layer_input": 12,
            "embedding_dim": 24,
            "rms_norm_eps": 1e-5,
        },
        gemma2_embedding_shapes(),
    ),
    "static": Case({"model_type": "static"}, {"embedding.weight": (VOCABULARY, WIDTH)}),
    "model2vec": Case(
        {"model_type": "static"},
        {
            "embeddings": (VOCABULARY // 2, WIDTH),
            "mapping": (VOCABULARY,),
            "weights": (VOCABULARY,),
        },
        integers=("mapping",),
    ),
}
