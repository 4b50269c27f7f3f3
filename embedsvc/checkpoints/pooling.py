"""How a Pooling module of sentence-transformers says to pool."""

from typing import Any

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.files import Files, as_array

BOOLEANS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
"""The keys by which poolings are switched on up to sentence-transformers 5, in the order in which
it puts them side by side."""

NAMES: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
"""Values of the key `pooling_mode`, by which they are stated from sentence-transformers 6 on."""


def read_pooling(files: Files, config: dict[str, Any]) -> tuple[tuple[Pooling, ...], bool]:
    """The poolings that the settings of a Pooling module state, and whether they take in the
    prompt. The settings come from the config.json among `files`."""
    if not config:
        raise files.error("config.json", "does not say how to pool")
    named: Any = config.get("pooling_mode")
    if named is None:
        stated = [key for key in config if key.startswith("pooling_mode_")]
        unknown = {key for key in stated if switch(files, config, key)} - BOOLEANS.keys()
        if unknown:
            raise files.error("config.json", f"pooling `{min(unknown)}` is not supported")
        # Where none is switched on, sentence-transformers takes the mean.
        modes: list[Pooling] = [mode for key, mode in BOOLEANS.items() if config.get(key)]
        modes = modes or ["mean"]
    else:
        names = [named] if isinstance(named, str) else as_array(named)
        if names is None or not 1 <= len(names) <= len(NAMES):
            raise files.error("config.json", f"`pooling_mode` of {names!r} is not supported")
        for name in map(str, names):
            if name not in NAMES:
                raise files.error("config.json", f"pooling `{name}` is not supported")
        modes = [NAMES[name] for name in names]
    return tuple(modes), switch(files, config, "include_prompt", default=True)


def switch(files: Files, config: dict[str, Any], key: str, *, default: bool = False) -> bool:
    """The value of a key of config.json that has to be true or false."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise files.error("config.json", f"`{key}` must be true or false, not {value!r}")
    return value
