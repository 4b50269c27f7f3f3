"""What the configs of several architectures have in common.

Strangers write config.json, so each number has bounds, and numbers that only make sense together
are checked against each other. What is not bounded here has to fit the shapes of the weights.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from embedsvc.bounds import LAYERS

Size = Annotated[int, Meta(ge=1, le=1 << 20)]
"""The width of a row, or of a part of one."""
Rows = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""Rows of a table whose rows are looked up by numbers of 32 bits."""
Layers = Annotated[int, Meta(ge=1, le=LAYERS)]
Eps = Annotated[float, Meta(gt=0, lt=1)]
"""The small number that keeps a norm from dividing by zero."""
Base = Annotated[float, Meta(ge=1, le=1e12)]
"""The base of rotary positions, `theta`."""
Factor = Annotated[float, Meta(ge=1e-6, le=1e6)]
"""A number that others are multiplied by."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that nearly all architectures spell alike."""

    vocab_size: Rows
    hidden_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Rows

    @property
    def longest(self) -> int:
        """The most tokens of a text that there are positions for."""
        return self.max_position_embeddings

    @property
    def rows(self) -> int:
        """Rows of the table of word embeddings."""
        return self.vocab_size

    def table_numbers(self, longest: int) -> int:
        """Numbers in the tables that are made at load, for texts of up to `longest` tokens."""
        return 0


RopeType = Literal["default", "dynamic", "linear"]
LayerType = Literal["full_attention", "sliding_attention"]
"""Whether a layer sees all of a text, or a window of it."""


class RopeParameters(msgspec.Struct, frozen=True):
    """Rotary positions as transformers 5 writes them; see `refuse_other_ropes`."""

    rope_theta: Base
    rope_type: RopeType = "default"
    factor: Factor = 1.0
    """How many times more slowly positions turn, where the type is `linear`."""


class RopeByLayer(msgspec.Struct, frozen=True):
    """The same, for each type of layer."""

    full_attention: RopeParameters
    sliding_attention: RopeParameters

    def of(self, kind: LayerType) -> RopeParameters:
        """Those of a type of layer."""
        return self.full_attention if kind == "full_attention" else self.sliding_attention


def refuse_unless(config: msgspec.Struct, **supported: object) -> None:
    """Raise `ValueError` that names a field of `config` if its value is not the `supported` one."""
    for name, value in supported.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(f"`{name}` of {found} is not supported (only {value})")


def refuse_remainder(config: msgspec.Struct, name: str, divisor: str) -> int:
    """A field of `config` divided by another.

    Raises `ValueError` that names both if there is a remainder.
    """
    whole, part = getattr(config, name), getattr(config, divisor)
    if whole % part:
        raise ValueError(f"`{name}` of {whole} is not a multiple of `{divisor}`, {part}")
    return whole // part


def refuse_odd_heads(size: int) -> None:
    """Raise `ValueError` unless heads have two equal halves, which rotary positions need."""
    if size % 2:
        raise ValueError(f"heads of {size} cannot be turned by halves: their size must be even")


def refuse_other_ropes(rope: RopeParameters | RopeByLayer | None, *known: RopeType) -> None:
    """Raise `ValueError` unless the rotary positions of every layer are of a `known` type."""
    ropes = (
        (rope.full_attention, rope.sliding_attention) if isinstance(rope, RopeByLayer) else (rope,)
    )
    for each in ropes:
        if each is not None and each.rope_type not in known:
            raise ValueError(
                f"`rope_type` of {each.rope_type} is not supported (only {', '.join(known)})"
            )


def refuse_wrong_kinds(kinds: tuple[str, ...] | None, layers: int) -> None:
    """Raise `ValueError` if `layer_types` are given, but not one for each layer."""
    if kinds is not None and len(kinds) != layers:
        raise ValueError(
            f"`layer_types` are {len(kinds)}, not one for each of `num_hidden_layers`, {layers}"
        )
