"""What the configs of several architectures have in common."""

from typing import Literal

import msgspec


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
