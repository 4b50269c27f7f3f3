"""What the configs of several architectures have in common."""

from typing import Literal

import msgspec


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What nearly all spell alike."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int

    @property
    def longest(self) -> int:
        """Tokens of the longest text there are positions for."""
        return self.max_position_embeddings


class RopeParameters(msgspec.Struct, frozen=True):
    """Rotary positions as transformers 5 writes them; no kind of scaling is known here."""

    rope_theta: float
    rope_type: Literal["default"] = "default"


class RopeByLayer(msgspec.Struct, frozen=True):
    """The same, for layers that see all of a text and for layers that see a window of it."""

    full_attention: RopeParameters
    sliding_attention: RopeParameters


def refuse_unless(config: msgspec.Struct, **wanted: object) -> None:
    """Raise `ValueError` that names a field of `config` if it differs from what is `wanted`."""
    for name, value in wanted.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(f"`{name}` of {found} is not supported (only {value})")
