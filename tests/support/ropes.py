"""Rotary positions of models that were stretched for longer texts, as their config.json says it."""

from typing import Any, NamedTuple


class Stretched(NamedTuple):
    """What the table of a model's rotary positions depends on."""

    size: int
    """The width of its heads."""
    positions: int
    """Its `max_position_embeddings`."""
    rope: dict[str, Any]


STRETCHED = {
    "llama-nemotron-embed-1b-v2": Stretched(
        64,
        131072,
        {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "Nemotron-3-Embed": Stretched(
        128,
        262144,
        {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
    ),
    "Qwen with yarn": Stretched(
        128,
        131072,
        {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
        },
    ),
    "yarn by its positions": Stretched(
        64,
        40960,
        {
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": None,
            "original_max_position_embeddings": 4096,
            "attention_factor": 1.25,
            "truncate": False,
        },
    ),
    "KaLM-Embedding-Gemma3": Stretched(
        256, 32768, {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0}
    ),
    "Gemma 4": Stretched(
        512,
        131072,
        {
            "rope_type": "proportional",
            "rope_theta": 1_000_000.0,
            "partial_rotary_factor": 0.25,
        },
    ),
    "dynamic": Stretched(64, 8192, {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}),
}
