"""Gemma 3: norms before and after each block, shared keys, GEGLU, and attention to a window of the
text in most layers (Gemma team, 2025, arXiv:2503.19786).

EmbeddingGemma is this architecture without causal masks (arXiv:2509.20354).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    Factor,
    Layers,
    RopeByLayer,
    Rows,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_remainder,
    refuse_unless,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.weight_reader import Reader
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Linear,
    Ops,
    columns,
    rope_table,
)

UNUSED = ("lm_head.",)
"""Tensors that checkpoints carry and the hidden states do not need."""

LayerType = Literal["full_attention", "sliding_attention"]


class Config(Sizes, frozen=True, kw_only=True):
    """What the pass reads of config.json."""

    num_key_value_heads: Size
    head_dim: Size
    rms_norm_eps: Eps
    query_pre_attn_scalar: Factor
    sliding_window: Rows
    hidden_activation: Literal["gelu_pytorch_tanh"]
    use_bidirectional_attention: bool = False
    layer_types: tuple[LayerType, ...] | None = None
    sliding_window_pattern: Layers = 6
    rope_parameters: RopeByLayer | None = None
    rope_theta: Base = 1_000_000.0
    rope_local_base_freq: Base = 10_000.0
    rope_scaling: None = None
    attn_logit_softcapping: None = None
    attention_bias: bool = False

    def __post_init__(self) -> None:
        refuse_unless(self, attention_bias=False)
        refuse_remainder(self, "num_attention_heads", "num_key_value_heads")
        refuse_odd_heads(self.head_dim)
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)

    def made(self, longest: int) -> int:
        """Numbers of the rotary positions of so many tokens, for each kind of layer."""
        return longest * self.head_dim * len(set(self.kinds()))

    def kinds(self) -> tuple[LayerType, ...]:
        """What each layer attends to."""
        return self.layer_types or tuple(
            "full_attention" if i % self.sliding_window_pattern == 0 else "sliding_attention"
            for i in range(1, self.num_hidden_layers + 1)
        )

    def theta(self, kind: LayerType) -> float:
        """The base of the rotary positions of such a layer."""
        if self.rope_parameters is not None:
            return getattr(self.rope_parameters, kind).rope_theta
        return self.rope_theta if kind == "full_attention" else self.rope_local_base_freq

    def window(self, kind: LayerType) -> int | None:
        """How far such a layer sees: half the window each way, or all of it back."""
        if kind == "full_attention":
            return None
        half = self.sliding_window // 2
        return half if self.use_bidirectional_attention else self.sliding_window - 1


@dataclass(frozen=True, slots=True)
class View:
    """How a layer sees a text."""

    rope: Array
    attention: Attention


@dataclass(frozen=True, slots=True)
class Layer:
    view: View
    attention_norm: Array  # (D,)
    qkv: Linear  # D -> (heads + 2 kv_heads) * head_dim
    q_norm: Array  # (head_dim,)
    k_norm: Array  # (head_dim,)
    attention_out: Linear  # heads * head_dim -> D
    attention_out_norm: Array  # (D,)
    mlp_norm: Array  # (D,)
    gate_up: Linear  # D -> 2 intermediate
    down: Linear  # intermediate -> D
    mlp_out_norm: Array  # (D,)


@dataclass(frozen=True, slots=True)
class Weights:
    words: Array  # (vocabulary, D)
    layers: tuple[Layer, ...]
    norm: Array  # (D,)


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = Reader(ops, tensors)
    width, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

    def view(kind: LayerType) -> View:
        table = rope_table(size, config.theta(kind), inputs.longest)
        attention = Attention(
            heads,
            kv_heads,
            scale=config.query_pre_attn_scalar**-0.5,
            causal=not config.use_bidirectional_attention,
            window=config.window(kind),
        )
        return View(ops.float32(table), attention)

    def norm(name: str, width: int) -> Array:
        return ops.array(1 + tensors.take(f"{name}.weight", width))  # stored as what it adds to 1

    def layer(name: str, view: View) -> Layer:
        of = f"{name}.self_attn"
        qkv = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        gate_up = {f"{name}.mlp.{x}_proj": inner for x in ("gate", "up")}
        return Layer(
            view=view,
            attention_norm=norm(f"{name}.input_layernorm", width),
            qkv=read.joined({f"{of}.{x}_proj": n for x, n in qkv.items()}, width, bias=False),
            q_norm=norm(f"{of}.q_norm", size),
            k_norm=norm(f"{of}.k_norm", size),
            attention_out=read.linear(f"{of}.o_proj", heads * size, width, bias=False),
            attention_out_norm=norm(f"{name}.post_attention_layernorm", width),
            mlp_norm=norm(f"{name}.pre_feedforward_layernorm", width),
            gate_up=read.joined(gate_up, width, bias=False),
            down=read.linear(f"{name}.mlp.down_proj", inner, width, bias=False),
            mlp_out_norm=norm(f"{name}.post_feedforward_layernorm", width),
        )

    kinds = config.kinds()
    views = {kind: view(kind) for kind in set(kinds)}
    words = tensors.take_weight("embed_tokens.weight", config.vocab_size, width)
    return Weights(
        words=ops.array(words * np.float32(width**0.5)),
        layers=tuple(layer(f"layers.{i}", views[kind]) for i, kind in enumerate(kinds)),
        norm=norm("norm", width),
    )


def forward(ops: Ops, weights: Weights, config: Config, batch: Batch) -> Array:
    """Hidden states (N, D) of the last layer, after its norm."""
    hidden = ops.embedding(weights.words, batch.ids)
    for layer in weights.layers:
        hidden = _layer(ops, layer, config, hidden, batch)
    return ops.rows(partial(ops.rms_norm, weight=weights.norm, eps=config.rms_norm_eps), hidden)


def _layer(ops: Ops, layer: Layer, config: Config, hidden: Array, batch: Batch) -> Array:
    eps, inner, size = config.rms_norm_eps, config.intermediate_size, config.head_dim
    q_width, kv_width = config.num_attention_heads * size, config.num_key_value_heads * size
    rope = layer.view.rope

    def project(hidden: Array, positions: Array) -> tuple[Array, ...]:
        normed = ops.rms_norm(ops.copy(hidden), layer.attention_norm, eps)
        q, k, v = columns(ops.linear(normed, layer.qkv), q_width, kv_width, kv_width)
        q = ops.rope(ops.rms_norm(q, layer.q_norm, eps), rope, positions)
        k = ops.rope(ops.rms_norm(k, layer.k_norm, eps), rope, positions)
        return q, k, v

    def finish(context: Array, hidden: Array) -> Array:
        attended = ops.linear(context, layer.attention_out)
        hidden = ops.add(ops.rms_norm(attended, layer.attention_out_norm, eps), hidden)
        normed = ops.rms_norm(ops.copy(hidden), layer.mlp_norm, eps)
        gate, up = columns(ops.linear(normed, layer.gate_up), inner, inner)
        inner_out = ops.linear(ops.multiply(ops.gelu_tanh(gate), up), layer.down)
        return ops.add(ops.rms_norm(inner_out, layer.mlp_out_norm, eps), hidden)

    q, k, v = ops.rows(project, hidden, batch.positions)
    context = ops.attention(q, k, v, layer.view.attention, batch.layout)
    return ops.rows(finish, context, hidden)
