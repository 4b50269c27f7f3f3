"""How fast the heads of decoders turn from position to position, and how that is slowed down for
texts longer than those a model was first trained on.

The names are those of config.json, where `rope_parameters` or `rope_scaling` says it.
"""

import math
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from embedsvc.inference.models.configs import Base, Factor, Rows
from embedsvc.inference.ops.base import rope_rows, rope_turns

Turns = NDArray[np.float32]
ONE = np.float32(1)
RopeType = Literal["default", "dynamic", "linear", "llama3", "proportional", "yarn"]


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """The rotary positions of a kind of layer. What is None is said elsewhere, or has a default."""

    rope_theta: Base | None = None
    rope_type: RopeType | None = None
    type: RopeType | None = None
    """What older files have in place of `rope_type`."""
    factor: Factor | None = None
    """How many times longer texts are."""
    original_max_position_embeddings: Rows | None = None
    """The longest text before that, in tokens."""
    partial_rotary_factor: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """The part of each head that turns."""
    low_freq_factor: Factor = 1.0
    high_freq_factor: Factor = 4.0
    attention_factor: Factor | None = None
    """What cosines and sines are multiplied by."""
    beta_fast: Factor | None = None
    beta_slow: Factor | None = None
    mscale: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    mscale_all_dim: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    truncate: bool = True
    llama_4_scaling_beta: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    """How much louder queries are beyond the trained length, where no text is embedded."""

    def __post_init__(self) -> None:
        if self.kind in ("linear", "llama3") and self.factor is None:
            raise ValueError(f"`factor` is missing, which `rope_type` of {self.kind} needs")
        if self.kind != "proportional" and self.partial_rotary_factor != 1:
            raise ValueError(
                f"`partial_rotary_factor` of {self.partial_rotary_factor:g} is not supported with "
                f"`rope_type` of {self.kind}"
            )
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("`high_freq_factor` must be greater than `low_freq_factor`")

    @property
    def kind(self) -> RopeType:
        """How it slows down."""
        return self.rope_type or self.type or "default"


class RopePlan(NamedTuple):
    """All that the table of a kind of layer depends on."""

    rope: Rope
    theta: float
    trained: int
    """The longest text before positions were slowed down."""
    positions: int
    """`max_position_embeddings`."""

    @property
    def longest(self) -> int:
        """The most tokens of a text whose queries all count alike."""
        return self.trained if self.rope.llama_4_scaling_beta else self.positions

    def check(self, *known: RopeType) -> None:
        """Raise `ValueError` unless it is of a `known` type and can be computed."""
        kind = self.rope.kind
        if kind not in known:
            raise ValueError(f"`rope_type` of {kind} is not supported (only {', '.join(known)})")
        if kind == "yarn" and self.theta <= 1:
            raise ValueError(f"`rope_theta` of {self.theta:g} is too small for `rope_type` of yarn")

    def table(self, size: int, length: int) -> NDArray[np.float32]:
        """The table for `Ops.rope` for heads of that size (length, size)."""
        turns, scale = SLOWED[self.rope.kind](self, size)
        return rope_rows(turns, length) * np.float32(scale)


def plan_rope(
    theta: float,
    positions: int,
    *stated: Rope | None,
    trained: int | None = None,
) -> RopePlan:
    """How a kind of layer turns, by the first of the objects of config.json that is `stated`.

    `theta` is the base that stands beside them, `positions` the file's `max_position_embeddings`,
    `trained` its `original_max_position_embeddings`, which goes before the object's own.
    """
    rope = next((rope for rope in stated if rope is not None), Rope())
    trained = trained or rope.original_max_position_embeddings or positions
    return RopePlan(rope, rope.rope_theta or theta, trained, positions)


def _default(plan: RopePlan, size: int) -> tuple[Turns, float]:
    """As trained. `dynamic` positions are so for texts within `max_position_embeddings`."""
    return rope_turns(size, plan.theta), 1.0


def _linear(plan: RopePlan, size: int) -> tuple[Turns, float]:
    """All elements alike (Chen et al., 2023, arXiv:2306.15595)."""
    return rope_turns(size, plan.theta) / _factor(plan), 1.0


def _proportional(plan: RopePlan, size: int) -> tuple[Turns, float]:
    """The first elements of each half turn, and the others keep still."""
    turns = rope_turns(size, plan.theta) / _factor(plan)
    turns[int(plan.rope.partial_rotary_factor * size // 2) :] = 0
    return turns, 1.0


def _llama3(plan: RopePlan, size: int) -> tuple[Turns, float]:
    """Slow elements only, and those between the two gradually (Llama team, 2024, arXiv:2407.21783,
    as Meta's code has it)."""
    low, high = plan.rope.low_freq_factor, plan.rope.high_freq_factor
    turns = rope_turns(size, plan.theta)
    wavelengths = np.float32(2 * math.pi) / turns
    share = (np.float32(plan.trained) / wavelengths - np.float32(low)) / np.float32(high - low)
    share: Turns = np.clip(share, 0, 1)
    slowed = (ONE - share) * turns / _factor(plan) + share * turns
    return slowed.astype(np.float32, copy=False), 1.0


def _yarn(plan: RopePlan, size: int) -> tuple[Turns, float]:
    """Elements by how often they turn round within the trained length, and the scores of attention
    a little sharper (Peng et al., 2023, arXiv:2309.00071)."""
    rope, turns = plan.rope, rope_turns(size, plan.theta)
    factor = rope.factor or plan.positions / plan.trained

    def element(rounds: float) -> float:
        """The element that turns round so many times within the trained length."""
        return size * math.log(plan.trained / (rounds * 2 * math.pi)) / (2 * math.log(plan.theta))

    first, last = element(rope.beta_fast or 32), element(rope.beta_slow or 1)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    width = last - first or 0.001
    elements = np.arange(size // 2, dtype=np.float32)
    slowed: Turns = np.clip((elements - np.float32(first)) / np.float32(width), 0, 1)
    mixed = turns / np.float32(factor) * slowed + turns * (ONE - slowed)
    return mixed.astype(np.float32, copy=False), _sharper(rope, factor)


def _sharper(rope: Rope, factor: float) -> float:
    """What `yarn` multiplies cosines and sines by."""
    if rope.attention_factor is not None:
        return rope.attention_factor

    def scale(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    if rope.mscale and rope.mscale_all_dim:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)


def _factor(plan: RopePlan) -> np.float32:
    return np.float32(plan.rope.factor or 1.0)


SLOWED: dict[RopeType, Any] = {
    "default": _default,
    "dynamic": _default,
    "linear": _linear,
    "llama3": _llama3,
    "proportional": _proportional,
    "yarn": _yarn,
}
"""From a plan and the size of heads to the turns of the elements of a half (size / 2,), and what
cosines and sines are multiplied by."""
