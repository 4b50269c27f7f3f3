"""Forward passes in float64 NumPy, from papers and configs, for models that transformers lacks.

One text at a time, one head at a time, one token and one expert at a time: slow, and plain to see.
Each takes the tensors of a checkpoint by their names, its config.json, and the token ids of a text,
and returns hidden states (L, D).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tensors = dict[str, NDArray[Any]]


def jina_bert(
    tensors: Tensors,
    config: dict[str, Any],
    ids: NDArray[np.int32],
    types: NDArray[np.int32] | int = 0,
) -> Floats:
    """BERT with ALiBi and gated linear units (arXiv:2310.19923, sections 3 and 4.1).

    The paper's bias is symmetric: a head's slope times the distance, subtracted.
    """
    take = _taker(tensors)
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    distance = np.abs(np.subtract.outer(np.arange(len(ids)), np.arange(len(ids))))
    bias = [-slope * distance for slope in alibi_slopes(heads)]
    hidden = take("embeddings.word_embeddings.weight")[ids]
    hidden = hidden + take("embeddings.token_type_embeddings.weight")[types]
    hidden = _layer_norm(hidden, take, "embeddings.LayerNorm", eps)
    for i in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{i}"
        of = f"{name}.attention.self"
        q, k, v = (_linear(hidden, take, f"{of}.{part}") for part in ("query", "key", "value"))
        for_code = f"{of}.layer_norm_q.weight" in tensors
        if for_code:
            q = _layer_norm(q, take, f"{of}.layer_norm_q", eps)
            k = _layer_norm(k, take, f"{of}.layer_norm_k", eps)
        attended = _linear(_attention(q, k, v, bias), take, f"{name}.attention.output.dense")
        attended = _layer_norm(attended + hidden, take, f"{name}.attention.output.LayerNorm", eps)
        if for_code:
            attended = _layer_norm(hidden + attended, take, f"{name}.layer_norm_1", eps)
            up, gate = np.split(_linear(attended, take, f"{name}.mlp.up_gated_layer"), 2, axis=1)
            inner = _linear(up * _gelu(gate), take, f"{name}.mlp.down_layer")
            hidden = _layer_norm(attended + inner, take, f"{name}.layer_norm_2", eps)
        else:
            gate, up = np.split(_linear(attended, take, f"{name}.mlp.gated_layers"), 2, axis=1)
            inner = _linear(_gelu(gate) * up, take, f"{name}.mlp.wo")
            hidden = _layer_norm(attended + inner, take, f"{name}.mlp.layernorm", eps)
    return hidden


def nomic_bert_moe(tensors: Tensors, config: dict[str, Any], ids: NDArray[np.int32]) -> Floats:
    """Nomic BERT whose odd layers route each token to experts (arXiv:2502.07972, section 3).

    A router's softmax over all experts weighs the chosen ones, without being scaled to one anew.
    """
    take = _taker(tensors)
    heads, eps, width = config["n_head"], config["layer_norm_epsilon"], config["n_embd"]
    hidden = take("embeddings.word_embeddings.weight")[ids]
    hidden = hidden + take("embeddings.token_type_embeddings.weight")[0]
    hidden = _layer_norm(hidden, take, "emb_ln", eps)
    for i in range(config["n_layer"]):
        name = f"encoder.layers.{i}"
        q, k, v = np.split(_linear(hidden, take, f"{name}.attn.Wqkv"), 3, axis=1)
        base = config["rotary_emb_base"]
        q, k = _rotated(q, width // heads, base), _rotated(k, width // heads, base)
        context = _attention(q, k, v, [0.0] * heads)
        hidden = hidden + _linear(context, take, f"{name}.attn.out_proj")
        hidden = _layer_norm(hidden, take, f"{name}.norm1", eps)
        if i % config["moe_every_n_layers"] == 1:
            inner = _experts(hidden, take, f"{name}.mlp", config)
        else:
            inner = _gelu(_linear(hidden, take, f"{name}.mlp.fc1"))
            inner = _linear(inner, take, f"{name}.mlp.fc2")
        hidden = _layer_norm(hidden + inner, take, f"{name}.norm2", eps)
    return hidden


def alibi_slopes(heads: int) -> list[float]:
    """Slopes as in the ALiBi paper (arXiv:2108.12409, section 3) for a power of two of heads.

    For n others its code takes those of the power of two below, then every other one of those for
    the power of two above, from the first on.
    """
    if heads & (heads - 1) == 0:
        return [2 ** (-8 * (i + 1) / heads) for i in range(heads)]
    below = 1 << (heads.bit_length() - 1)
    return alibi_slopes(below) + alibi_slopes(2 * below)[::2][: heads - below]


def _experts(x: Floats, take: Callable[[str], Floats], name: str, config: dict[str, Any]) -> Floats:
    shape = (config["num_experts"], config["n_inner"], config["n_embd"])
    up = take(f"{name}.experts.mlp.w1").reshape(shape)
    down = take(f"{name}.experts.mlp.w2").reshape(shape)
    out = np.zeros_like(x)
    for row, token in enumerate(x):
        weights = _softmax(take(f"{name}.router.layer.weight") @ token)
        for expert in np.argsort(-weights)[: config["moe_top_k"]]:
            out[row] += weights[expert] * (_gelu(up[expert] @ token) @ down[expert])
    return out + take(f"{name}.experts.bias")


def _attention(q: Floats, k: Floats, v: Floats, bias: list[Any]) -> Floats:
    """Softmax attention; a bias for each head."""
    parts = zip(*(np.split(x, len(bias), axis=1) for x in (q, k, v)), bias, strict=True)
    return np.concatenate(
        [_softmax(q @ k.T / math.sqrt(q.shape[1]) + b) @ v for q, k, v, b in parts], axis=1
    )


def _rotated(x: Floats, size: int, base: float) -> Floats:
    """Rotary positions (arXiv:2104.09864): element e of a head's first half is the real part, and
    element e of its second half the imaginary part, of a number that position p turns by
    p / base^(2 e / size)."""
    half = size // 2
    angles = np.outer(np.arange(len(x)), base ** (-2.0 * np.arange(half) / size))
    heads = np.split(x, x.shape[1] // size, axis=1)
    turned = [(head[:, :half] + 1j * head[:, half:]) * np.exp(1j * angles) for head in heads]
    return np.concatenate([part for z in turned for part in (z.real, z.imag)], axis=1)


def _softmax(scores: Floats) -> Floats:
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _gelu(x: Floats) -> Floats:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def _layer_norm(x: Floats, take: Callable[[str], Floats], name: str, eps: float) -> Floats:
    normed = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + eps)
    return normed * take(f"{name}.weight") + take(f"{name}.bias")


def _linear(x: Floats, take: Callable[[str], Floats], name: str) -> Floats:
    out = x @ take(f"{name}.weight").T
    try:
        return out + take(f"{name}.bias")
    except KeyError:
        return out


def _taker(tensors: Tensors) -> Callable[[str], Floats]:
    return lambda name: tensors[name].astype(np.float64)
