"""A tiny random checkpoint of every architecture, in Hub layout, the same each time it is written.

`tests/reference/architectures.py` writes them too, and records what the reference makes of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.checkpoints import write_json, write_tokenizer

Shapes = dict[str, tuple[int, ...]]

VOCABULARY = 40
WIDTH, HEADS, INNER = 24, 3, 32
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
        about = 1 if name.endswith("weight") and "gemma" not in self.config["model_type"] else 0
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
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ]
        write_json(folder / "modules.json", modules)
        write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{self.pooling}": True})
        write_tokenizer(folder)
        save_file(self.tensors(), folder / "model.safetensors")
        return folder


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int = WIDTH, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (width,)}
    return shapes | ({f"{name}.bias": (width,)} if bias else {})


def _layers(pattern: str, count: int, layer: Callable[[str, int], Shapes]) -> Shapes:
    return {k: v for i in range(count) for k, v in layer(pattern.format(i), i).items()}


def _bert_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= _linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
    shapes |= _linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
    shapes |= _norm(f"{name}.attention.output.LayerNorm")
    shapes |= _linear(f"{name}.intermediate.dense", WIDTH, INNER)
    shapes |= _linear(f"{name}.output.dense", INNER, WIDTH)
    return shapes | _norm(f"{name}.output.LayerNorm")


def _bert_shapes(places: int, types: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (places, WIDTH),
        "embeddings.token_type_embeddings.weight": (types, WIDTH),
        **_norm("embeddings.LayerNorm"),
        **_layers("encoder.layer.{}", 2, _bert_layer),
        **_linear("pooler.dense", WIDTH, WIDTH),
    }


def _distilbert_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
        shapes |= _linear(f"{name}.attention.{part}", WIDTH, WIDTH)
    shapes |= _norm(f"{name}.sa_layer_norm")
    shapes |= _linear(f"{name}.ffn.lin1", WIDTH, INNER) | _linear(f"{name}.ffn.lin2", INNER, WIDTH)
    return shapes | _norm(f"{name}.output_layer_norm")


def _mpnet_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q", "k", "v", "o"):
        shapes |= _linear(f"{name}.attention.attn.{part}", WIDTH, WIDTH)
    shapes |= _norm(f"{name}.attention.LayerNorm")
    shapes |= _linear(f"{name}.intermediate.dense", WIDTH, INNER)
    shapes |= _linear(f"{name}.output.dense", INNER, WIDTH)
    return shapes | _norm(f"{name}.output.LayerNorm")


def _nomic_layer(name: str, index: int) -> Shapes:
    return {
        **_linear(f"{name}.attn.Wqkv", WIDTH, 3 * WIDTH, bias=False),
        **_linear(f"{name}.attn.out_proj", WIDTH, WIDTH, bias=False),
        **_norm(f"{name}.norm1"),
        **_linear(f"{name}.mlp.fc11", WIDTH, INNER, bias=False),
        **_linear(f"{name}.mlp.fc12", WIDTH, INNER, bias=False),
        **_linear(f"{name}.mlp.fc2", INNER, WIDTH, bias=False),
        **_norm(f"{name}.norm2"),
    }


EXPERTS = 4


def _nomic_moe_layer(name: str, index: int) -> Shapes:
    shapes = {
        **_linear(f"{name}.attn.Wqkv", WIDTH, 3 * WIDTH),
        **_linear(f"{name}.attn.out_proj", WIDTH, WIDTH),
        **_norm(f"{name}.norm1"),
        **_norm(f"{name}.norm2"),
    }
    if index % 2 == 0:
        fc2 = _linear(f"{name}.mlp.fc2", INNER, WIDTH)
        return shapes | _linear(f"{name}.mlp.fc1", WIDTH, INNER) | fc2
    return {
        **shapes,
        **_linear(f"{name}.mlp.router.layer", WIDTH, EXPERTS, bias=False),
        f"{name}.mlp.experts.mlp.w1": (EXPERTS * INNER, WIDTH),
        f"{name}.mlp.experts.mlp.w2": (EXPERTS * INNER, WIDTH),
        f"{name}.mlp.experts.bias": (WIDTH,),
    }


def _nomic_shapes(layer: Callable[[str, int], Shapes], types: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.token_type_embeddings.weight": (types, WIDTH),
        **_norm("emb_ln"),
        **_layers("encoder.layers.{}", 2, layer),
    }


def _gte_layer(name: str, index: int) -> Shapes:
    return {
        **_linear(f"{name}.attention.qkv_proj", WIDTH, 3 * WIDTH),
        **_linear(f"{name}.attention.o_proj", WIDTH, WIDTH),
        **_norm(f"{name}.attn_ln"),
        **_linear(f"{name}.mlp.up_gate_proj", WIDTH, 2 * INNER, bias=False),
        **_linear(f"{name}.mlp.down_proj", INNER, WIDTH),
        **_norm(f"{name}.mlp_ln"),
    }


def _gte_shapes(types: int) -> Shapes:
    named: Shapes = {"embeddings.token_type_embeddings.weight": (types, WIDTH)}
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        **(named if types else {}),
        **_norm("embeddings.LayerNorm"),
        **_layers("encoder.layer.{}", 2, _gte_layer),
    }


def _jina_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= _linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
    shapes |= _linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
    shapes |= _norm(f"{name}.attention.output.LayerNorm")
    shapes |= _linear(f"{name}.mlp.gated_layers", WIDTH, 2 * INNER, bias=False)
    shapes |= _linear(f"{name}.mlp.wo", INNER, WIDTH)
    return shapes | _norm(f"{name}.mlp.layernorm")


def _jina_code_layer(name: str, index: int) -> Shapes:
    shapes = {k: v for k, v in _jina_layer(name, index).items() if ".mlp." not in k}
    for part in ("attention.self.layer_norm_q", "attention.self.layer_norm_k"):
        shapes |= _norm(f"{name}.{part}")
    shapes |= _linear(f"{name}.mlp.up_gated_layer", WIDTH, 2 * INNER, bias=False)
    shapes |= _linear(f"{name}.mlp.down_layer", INNER, WIDTH)
    return shapes | _norm(f"{name}.layer_norm_1") | _norm(f"{name}.layer_norm_2")


def _jina_shapes(layer: Callable[[str, int], Shapes]) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **_norm("embeddings.LayerNorm"),
        **_layers("encoder.layer.{}", 2, layer),
        **_linear("pooler.dense", WIDTH, WIDTH),
    }


def _modernbert_layer(name: str, index: int) -> Shapes:
    return {
        **(_norm(f"{name}.attn_norm", bias=False) if index else {}),
        **_linear(f"{name}.attn.Wqkv", WIDTH, 3 * WIDTH, bias=False),
        **_linear(f"{name}.attn.Wo", WIDTH, WIDTH, bias=False),
        **_norm(f"{name}.mlp_norm", bias=False),
        **_linear(f"{name}.mlp.Wi", WIDTH, 2 * INNER, bias=False),
        **_linear(f"{name}.mlp.Wo", INNER, WIDTH, bias=False),
    }


def _modernbert_shapes() -> Shapes:
    return {
        "embeddings.tok_embeddings.weight": (VOCABULARY, WIDTH),
        **_norm("embeddings.norm", bias=False),
        **_layers("layers.{}", 4, _modernbert_layer),
        **_norm("final_norm", bias=False),
    }


def _decoder_layer(heads: int, kv_heads: int, size: int, norms: tuple[str, ...]) -> Any:
    def layer(name: str, index: int) -> Shapes:
        shapes: Shapes = {}
        for part, outputs in {"q": heads, "k": kv_heads, "v": kv_heads}.items():
            shapes |= _linear(f"{name}.self_attn.{part}_proj", WIDTH, outputs * size, bias=False)
        shapes |= _linear(f"{name}.self_attn.o_proj", heads * size, WIDTH, bias=False)
        shapes |= _norm(f"{name}.self_attn.q_norm", size, bias=False)
        shapes |= _norm(f"{name}.self_attn.k_norm", size, bias=False)
        for part, (inputs, outputs) in {
            "gate": (WIDTH, INNER),
            "up": (WIDTH, INNER),
            "down": (INNER, WIDTH),
        }.items():
            shapes |= _linear(f"{name}.mlp.{part}_proj", inputs, outputs, bias=False)
        for norm in norms:
            shapes |= _norm(f"{name}.{norm}", bias=False)
        return shapes

    return layer


def _decoder_shapes(count: int, layer: Any) -> Shapes:
    return {
        "embed_tokens.weight": (VOCABULARY, WIDTH),
        **_layers("layers.{}", count, layer),
        **_norm("norm", bias=False),
    }


QWEN3_NORMS = ("input_layernorm", "post_attention_layernorm")
GEMMA3_NORMS = (*QWEN3_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")

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
QWEN3_SHAPES = _decoder_shapes(2, _decoder_layer(4, 2, 8, QWEN3_NORMS))
GEMMA3_SHAPES = _decoder_shapes(3, _decoder_layer(3, 1, 8, GEMMA3_NORMS))

CASES = {
    "bert": Case(BERT, _bert_shapes(64, 2), pooling="cls_token"),
    "xlm-roberta": Case(
        BERT
        | {
            "model_type": "xlm-roberta",
            "max_position_embeddings": 66,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "layer_norm_eps": 1e-5,
        },
        _bert_shapes(66, 1),
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
            **_norm("embeddings.LayerNorm"),
            **_layers("transformer.layer.{}", 2, _distilbert_layer),
        },
    ),
    "mpnet": Case(
        SIZES
        | {
            "model_type": "mpnet",
            "max_position_embeddings": 162,
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "pad_token_id": 1,
            "relative_attention_num_buckets": 32,
        },
        {
            "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
            "embeddings.position_embeddings.weight": (162, WIDTH),
            **_norm("embeddings.LayerNorm"),
            **_layers("encoder.layer.{}", 2, _mpnet_layer),
            "encoder.relative_attention_bias.weight": (32, HEADS),
            **_linear("pooler.dense", WIDTH, WIDTH),
        },
        longest=160,
    ),
    "nomic_bert": Case(
        NOMIC,
        _nomic_shapes(_nomic_layer, 2),
        reference=NOMIC_TRANSFORMERS,
    ),
    "nomic_bert-transformers": Case(NOMIC_TRANSFORMERS, _nomic_shapes(_nomic_layer, 2)),
    "nomic_bert-moe": Case(NOMIC_MOE, _nomic_shapes(_nomic_moe_layer, 1)),
    "gte": Case(
        GTE,
        _gte_shapes(1),
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
            "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        },
        _gte_shapes(0),
        pooling="cls_token",
    ),
    "jina_bert": Case(JINA, _jina_shapes(_jina_layer)),
    "jina_bert-code": Case(JINA, _jina_shapes(_jina_code_layer)),
    "modernbert": Case(MODERNBERT, _modernbert_shapes()),
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
        },
        _modernbert_shapes(),
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
    "gemma3_text": Case(GEMMA3, GEMMA3_SHAPES),
    "gemma3_text-transformers": Case(
        {k: v for k, v in GEMMA3.items() if "rope" not in k} | {"rope_parameters": BY_LAYER},
        GEMMA3_SHAPES,
    ),
    "gemma3_text-causal": Case(
        GEMMA3 | {"use_bidirectional_attention": False}, GEMMA3_SHAPES, pooling="lasttoken"
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
