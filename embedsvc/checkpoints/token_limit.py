"""The most tokens that a text may have, by the card or by the checkpoint's files."""

from typing import Any

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints import transformer_settings
from embedsvc.checkpoints.files import Files
from embedsvc.errors import CheckpointError

STATIC_MAX_TOKENS = 32768
"""Tokens of a text for static embeddings, which have no limit of their own."""
POSITIONS_FROM = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Values of `model_type` whose positions begin behind the padding token's id, so that those before
are never used."""


def max_tokens(files: Files, card: Card, config: dict[str, Any], *, static: bool) -> int:
    """The most tokens that a text may have. Raises `CheckpointError` if nothing states it."""
    if static:
        return min(card.max_tokens or STATIC_MAX_TOKENS, STATIC_MAX_TOKENS)
    _, settings = transformer_settings.read_settings(files)
    if card.max_tokens:
        return card.max_tokens  # `make_plan` refuses it if the model has fewer positions
    tokenizer = files.read("tokenizer_config.json")
    limits: list[Any] = [settings.max_seq_length, positions_of(config)]
    if settings.max_seq_length is None:
        limits.append(tokenizer.get("model_max_length", tokenizer.get("max_len")))
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    # Tokenisers without a limit state one of 10^30.
    if not known or min(known) > 10**9:
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {files.folder} says how long a text may be; "
            "give the card a `max_tokens`"
        )
    return min(known)


def positions_of(config: dict[str, Any]) -> int | None:
    """How many tokens the model has positions for; None where config.json does not say it.

    >>> positions_of({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1})
    512
    """
    if config.get("rotary_scaling_factor"):  # in longer texts, vectors would depend on other texts
        return config.get("max_trained_positions", 2048)
    stated = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    positions = max((n for n in stated if isinstance(n, int)), default=None)
    if positions is None or config["model_type"] not in POSITIONS_FROM:
        return positions
    padding: Any = config.get("pad_token_id")
    return positions - (padding if isinstance(padding, int) else 1) - 1
