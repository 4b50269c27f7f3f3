"""Names and shapes of the tensors of each architecture, as checkpoints on the Hub have them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Shapes = dict[str, tuple[int, ...]]

VOCABULARY = 40
WIDTH, HEADS, INNER, EXPERTS = 24, 3, 32, 4


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int = WIDTH, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (width,)}
    return shapes | ({f"{name}.bias": (width,)} if bias else {})


def layers_of(pattern: str, count: int, layer: Callable[[str, int], Shapes]) -> Shapes:
    return {k: v for i in range(count) for k, v in layer(pattern.format(i), i).items()}


def bert_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
    shapes |= linear(f"{name}.attention.output.dense", WIDTH, WIDTH)
    shapes |= norm(f"{name}.attention.output.LayerNorm")
    shapes |= linear(f"{name}.intermediate.dense", WIDTH, INNER)
    shapes |= linear(f"{name}.output.dense", INNER, WIDTH)
    return shapes | norm(f"{name}.output.LayerNorm")


def bert_shapes(places: int, types: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (places, WIDTH),
        "embeddings.token_type_embeddings.weight": (types, WIDTH),
        **norm("embeddings.LayerNorm"),
        **layers_of("encoder.layer.{}", 2, bert_layer),
        **linear("pooler.dense", WIDTH, WIDTH),
    }


def albert_shapes(narrow: int, groups: int, inner: int) -> Shapes:
    shapes: Shapes = {}
    for group, i in np.ndindex(groups, inner):
        name = f"encoder.albert_layer_groups.{group}.albert_layers.{i}"
        for part in ("query", "key", "value", "dense"):
            shapes |= linear(f"{name}.attention.{part}", WIDTH, WIDTH)
        shapes |= norm(f"{name}.attention.LayerNorm") | norm(f"{name}.full_layer_layer_norm")
        shapes |= linear(f"{name}.ffn", WIDTH, INNER) | linear(f"{name}.ffn_output", INNER, WIDTH)
    return {
        **narrow_embeddings(narrow, 64, 2),
        **linear("encoder.embedding_hidden_mapping_in", narrow, WIDTH),
        **shapes,
        **linear("pooler", WIDTH, WIDTH),
    }


def narrow_embeddings(width: int, places: int, types: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, width),
        "embeddings.position_embeddings.weight": (places, width),
        "embeddings.token_type_embeddings.weight": (types, width),
        **norm("embeddings.LayerNorm", width),
    }


def electra_shapes(narrow: int) -> Shapes:
    return {
        **narrow_embeddings(narrow, 64, 2),
        **(linear("embeddings_project", narrow, WIDTH) if narrow != WIDTH else {}),
        **layers_of("encoder.layer.{}", 2, bert_layer),
    }


def deberta_layer(name: str, index: int, *, shared: bool = False) -> Shapes:
    shapes = {k: v for k, v in bert_layer(name, index).items() if ".attention.self." not in k}
    parts = ("query_proj", "key_proj", "value_proj")
    for part in parts if shared else (*parts, "pos_key_proj", "pos_query_proj"):
        shapes |= linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
    return shapes


def deberta_shapes(*, shared: bool, distances: int, layers: int = 2) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        **norm("embeddings.LayerNorm"),
        "encoder.rel_embeddings.weight": (distances, WIDTH),
        **layers_of("encoder.layer.{}", layers, partial(deberta_layer, shared=shared)),
    }


def jina_v3_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        shapes |= linear(f"{name}.self_attn.{part}", WIDTH, WIDTH)
    shapes |= linear(f"{name}.mlp.fc1", WIDTH, INNER) | linear(f"{name}.mlp.fc2", INNER, WIDTH)
    return shapes | norm(f"{name}.post_attention_layernorm") | norm(f"{name}.post_mlp_layernorm")


def jina_v3_shapes(types: int) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.token_type_embeddings.weight": (types, WIDTH),
        **norm("embeddings.LayerNorm"),
        **layers_of("layers.{}", 2, jina_v3_layer),
        **linear("pooler.dense", WIDTH, WIDTH),
    }


def distilbert_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
        shapes |= linear(f"{name}.attention.{part}", WIDTH, WIDTH)
    shapes |= norm(f"{name}.sa_layer_norm")
    shapes |= linear(f"{name}.ffn.lin1", WIDTH, INNER) | linear(f"{name}.ffn.lin2", INNER, WIDTH)
    return shapes | norm(f"{name}.output_layer_norm")


def mpnet_layer(name: str, index: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q", "k", "v", "o"):
        shapes |= linear(f"{name}.attention.attn.{part}", WIDTH, WIDTH)
    shapes |= norm(f"{name}.attention.LayerNorm")
    shapes |= linear(f"{name}.intermediate.dense", WIDTH, INNER)
    shapes |= linear(f"{name}.output.dense", INNER, WIDTH)
    return shapes | norm(f"{name}.output.LayerNorm")


def nomic_layer(name: str, index: int) -> Shapes:
    return {
        **linear(f"{name}.attn.Wqkv", WIDTH, 3 * WIDTH, bias=False),
        **linear(f"{name}.attn.out_proj", WIDTH, WIDTH, bias=False),
        **norm(f"{name}.norm1"),
        **linear(f"{name}.mlp.fc11", WIDTH, INNER, bias=False),
        **linear(f"{name}.mlp.fc12", WIDTH, INNER, bias=False),
        **linear(f"{name}.mlp.fc2", INNER, WIDTH, bias=False),
        **norm(f"{name}.norm2"),
    }


def nomic_moe_layer(
    name: str, index: int, *, width: int = WIDTH, inner: int = INNER, experts: int = EXPERTS
) -> Shapes:
    shapes = {
        **linear(f"{name}.attn.Wqkv", width, 3 * width),
        **linear(f"{name}.attn.out_proj", width, width),
        **norm(f"{name}.norm1", width),
        **norm(f"{name}.norm2", width),
    }
    if index % 2 == 0:
        fc2 = linear(f"{name}.mlp.fc2", inner, width)
        return shapes | linear(f"{name}.mlp.fc1", width, inner) | fc2
    return {
        **shapes,
        **linear(f"{name}.mlp.router.layer", width, experts, bias=False),
        f"{name}.mlp.experts.mlp.w1": (experts * inner, width),
        f"{name}.mlp.experts.mlp.w2": (experts * inner, width),
        f"{name}.mlp.experts.bias": (width,),
    }


def nomic_shapes(
    layer: Callable[[str, int], Shapes],
    types: int,
    *,
    vocabulary: int = VOCABULARY,
    width: int = WIDTH,
    layers: int = 2,
) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.token_type_embeddings.weight": (types, width),
        **norm("emb_ln", width),
        **layers_of("encoder.layers.{}", layers, layer),
    }


def nomic_moe_shapes(config: dict[str, Any]) -> Shapes:
    """Tensors of a mixture of experts with that config.json."""
    width, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    return nomic_shapes(
        partial(nomic_moe_layer, width=width, inner=inner, experts=experts),
        config["type_vocab_size"],
        vocabulary=config["vocab_size"],
        width=width,
        layers=config["n_layer"],
    )


def gte_layer(name: str, index: int) -> Shapes:
    return {
        **linear(f"{name}.attention.qkv_proj", WIDTH, 3 * WIDTH),
        **linear(f"{name}.attention.o_proj", WIDTH, WIDTH),
        **norm(f"{name}.attn_ln"),
        **linear(f"{name}.mlp.up_gate_proj", WIDTH, 2 * INNER, bias=False),
        **linear(f"{name}.mlp.down_proj", INNER, WIDTH),
        **norm(f"{name}.mlp_ln"),
    }


def gte_shapes(types: int) -> Shapes:
    named: Shapes = {"embeddings.token_type_embeddings.weight": (types, WIDTH)}
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        **(named if types else {}),
        **norm("embeddings.LayerNorm"),
        **layers_of("encoder.layer.{}", 2, gte_layer),
    }


def jina_layer(name: str, index: int, *, width: int = WIDTH, inner: int = INNER) -> Shapes:
    shapes: Shapes = {}
    for part in ("query", "key", "value"):
        shapes |= linear(f"{name}.attention.self.{part}", width, width)
    shapes |= linear(f"{name}.attention.output.dense", width, width)
    shapes |= norm(f"{name}.attention.output.LayerNorm", width)
    shapes |= linear(f"{name}.mlp.gated_layers", width, 2 * inner, bias=False)
    shapes |= linear(f"{name}.mlp.wo", inner, width)
    return shapes | norm(f"{name}.mlp.layernorm", width)


def jina_code_layer(name: str, index: int) -> Shapes:
    shapes = {k: v for k, v in jina_layer(name, index).items() if ".mlp." not in k}
    for part in ("attention.self.layer_norm_q", "attention.self.layer_norm_k"):
        shapes |= norm(f"{name}.{part}")
    shapes |= linear(f"{name}.mlp.up_gated_layer", WIDTH, 2 * INNER, bias=False)
    shapes |= linear(f"{name}.mlp.down_layer", INNER, WIDTH)
    return shapes | norm(f"{name}.layer_norm_1") | norm(f"{name}.layer_norm_2")


def jina_like(
    layer: Callable[[str, int], Shapes],
    *,
    vocabulary: int = VOCABULARY,
    width: int = WIDTH,
    layers: int = 2,
) -> Shapes:
    return {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **norm("embeddings.LayerNorm", width),
        **layers_of("encoder.layer.{}", layers, layer),
        **linear("pooler.dense", width, width),
    }


def jina_shapes(config: dict[str, Any]) -> Shapes:
    """Tensors of a Jina BERT with that config.json."""
    width = config["hidden_size"]
    return jina_like(
        partial(jina_layer, width=width, inner=config["intermediate_size"]),
        vocabulary=config["vocab_size"],
        width=width,
        layers=config["num_hidden_layers"],
    )


def modernbert_layer(name: str, index: int) -> Shapes:
    return {
        **(norm(f"{name}.attn_norm", bias=False) if index else {}),
        **linear(f"{name}.attn.Wqkv", WIDTH, 3 * WIDTH, bias=False),
        **linear(f"{name}.attn.Wo", WIDTH, WIDTH, bias=False),
        **norm(f"{name}.mlp_norm", bias=False),
        **linear(f"{name}.mlp.Wi", WIDTH, 2 * INNER, bias=False),
        **linear(f"{name}.mlp.Wo", INNER, WIDTH, bias=False),
    }


def modernbert_shapes() -> Shapes:
    return {
        "embeddings.tok_embeddings.weight": (VOCABULARY, WIDTH),
        **norm("embeddings.norm", bias=False),
        **layers_of("layers.{}", 4, modernbert_layer),
        **norm("final_norm", bias=False),
    }


def decoder_layer(
    heads: int,
    kv_heads: int,
    size: int,
    norms: tuple[str, ...],
    *,
    of_heads: bool = True,
    biases: tuple[str, ...] = (),
) -> Any:
    """`of_heads`: queries and keys are normed; `biases` are the layers that have one."""

    def layer(name: str, index: int) -> Shapes:
        shapes: Shapes = {}

        def add(block: str, part: str, inputs: int, outputs: int) -> None:
            bias = part[0] in biases
            shapes.update(linear(f"{name}.{block}.{part}_proj", inputs, outputs, bias=bias))

        for part, count in {"q": heads, "k": kv_heads, "v": kv_heads}.items():
            add("self_attn", part, WIDTH, count * size)
        add("self_attn", "o", heads * size, WIDTH)
        for part in ("q_norm", "k_norm") if of_heads else ():
            shapes |= norm(f"{name}.self_attn.{part}", size, bias=False)
        for part in ("gate", "up"):
            add("mlp", part, WIDTH, INNER)
        add("mlp", "down", INNER, WIDTH)
        for part in norms:
            shapes |= norm(f"{name}.{part}", bias=False)
        return shapes

    return layer


def decoder_shapes(count: int, layer: Any) -> Shapes:
    return {
        "embed_tokens.weight": (VOCABULARY, WIDTH),
        **layers_of("layers.{}", count, layer),
        **norm("norm", bias=False),
    }


def llama_shapes(kv_heads: int, *, size: int = 8, biases: str = "") -> Shapes:
    """Those of two layers with three heads. `biases` are the first letters of the layers that have
    one: q, k, v, o, g(ate), u(p), d(own)."""
    return decoder_shapes(
        2,
        decoder_layer(3, kv_heads, size, QWEN3_NORMS, of_heads=False, biases=tuple(biases)),
    )


def gemma2_embedding_layer(name: str, index: int) -> Shapes:
    """Those of a layer of EmbeddingGemma 2: the last of three has wider heads, and fewer."""
    size, kv_heads = (16, 1) if index == 2 else (8, 2)
    layer = decoder_layer(4, kv_heads, size, GEMMA3_NORMS)
    block = f"{name}.ple_block"
    return {
        f"{name}.layer_scalar": (1,),
        **layer(name, index),
        **linear(f"{block}.per_layer_input_gate", WIDTH, 12, bias=False),
        **linear(f"{block}.per_layer_projection", 12, WIDTH, bias=False),
        **norm(f"{block}.post_per_layer_input_norm", bias=False),
    }


def gemma2_embedding_shapes() -> Shapes:
    return {
        **decoder_shapes(3, gemma2_embedding_layer),
        **linear("ple.per_layer_model_projection", WIDTH, 3 * 12, bias=False),
        **norm("ple.per_layer_projection_norm", 12, bias=False),
        **linear("embedding_projection", WIDTH, WIDTH, bias=False),
    }


QWEN3_NORMS = ("input_layernorm", "post_attention_layernorm")
GEMMA3_NORMS = (*QWEN3_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
