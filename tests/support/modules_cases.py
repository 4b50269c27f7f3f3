"""Chains of sentence-transformers modules, which `reference/record_modules.py` records and
`test_modules.py` compares with."""

from typing import Any

WIDTH = 16
TEXTS = ["hello", "hello world", "a much longer text of single letters", "z"]

Module = tuple[str, dict[str, Any]]


def pooling(*modes: str) -> Module:
    """A pooling as sentence-transformers 6 writes it."""
    return "Pooling", {"embedding_dimension": WIDTH, "pooling_mode": list(modes)}


def dense(inputs: int, outputs: int, activation: str, **config: Any) -> Module:
    """A dense layer with one of torch.nn's activations."""
    place = "linear" if activation == "Identity" else "activation"
    name = f"torch.nn.modules.{place}.{activation}"
    sizes = {"in_features": inputs, "out_features": outputs}
    return "Dense", {**sizes, "bias": True, "activation_function": name, **config}


NORMALIZE: Module = ("Normalize", {})
CASES: dict[str, list[Module]] = {
    "mean": [pooling("mean")],
    "cls": [pooling("cls")],
    "max": [pooling("max")],
    "lasttoken": [pooling("lasttoken")],
    "mean_sqrt_len": [pooling("mean_sqrt_len_tokens")],
    "weightedmean": [pooling("weightedmean")],
    "all poolings": [
        pooling("lasttoken", "mean", "weightedmean", "cls", "max", "mean_sqrt_len_tokens")
    ],
    "booleans": [
        (
            "Pooling",
            {
                "word_embedding_dimension": WIDTH,
                "pooling_mode_lasttoken": True,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_cls_token": True,
            },
        )
    ],
    "normalised": [pooling("mean"), NORMALIZE],
    "embeddinggemma": [
        pooling("mean"),
        dense(WIDTH, 64, "Identity", bias=False),
        dense(64, WIDTH, "Identity", bias=False),
        NORMALIZE,
    ],
    "tanh": [pooling("cls"), dense(WIDTH, 8, "Tanh"), ("Dropout", {"dropout": 0.5}), NORMALIZE],
    "activations": [
        pooling("mean"),
        *(dense(WIDTH, WIDTH, name) for name in ("ReLU", "GELU", "SiLU", "Sigmoid")),
    ],
    "default activation": [pooling("mean"), ("Dense", {"in_features": WIDTH, "out_features": 4})],
    "residual": [
        pooling("mean"),
        dense(WIDTH, WIDTH, "Tanh", use_residual=True),
        dense(WIDTH, 4, "Tanh", use_residual=True),
    ],
    "layer norm": [
        pooling("mean"),
        NORMALIZE,
        ("LayerNorm", {"dimension": WIDTH}),
        dense(WIDTH, 4, "Tanh"),
    ],
}
