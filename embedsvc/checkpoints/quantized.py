"""Quantised weights as MLX packs them. A group of neighbours in a row has a scale in common.

In the mode `affine` a weight is scale * code + bias, where the code is a whole number of 2 to 8
bits, and the bias is that of the group. In the modes `mxfp4`, `mxfp8` and `nvfp4` a weight is
scale * value, where both are floats of few bits (see float_codes.py).
"""

from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.float_codes import E2M1, E4M3, E8M0, nearest, next_power

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]
Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]

BITS, GROUP_SIZES = (2, 3, 4, 5, 6, 8), (32, 64, 128)
"""What a matrix in the mode `affine` may have."""


class FloatMode(NamedTuple):
    """How a mode whose codes are floats stores a matrix."""

    bits: int
    group_size: int
    values: Floats  # by code
    scales: Floats  # by code


FLOAT_MODES: dict[Mode, FloatMode] = {
    "mxfp4": FloatMode(4, 32, E2M1, E8M0),
    "mxfp8": FloatMode(8, 32, E4M3, E8M0),
    "nvfp4": FloatMode(4, 16, E2M1, E4M3),
}
MODES: tuple[Mode, ...] = ("affine", *FLOAT_MODES)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix (out, in). It can be joined with others, and multiplied by a number, as it is."""

    packed: Any  # uint32 (out, in * bits / 32), the first code in the lowest bits
    scales: Any  # (out, in / group_size), floats or, in the float modes, codes in uint8
    biases: Any  # (out, in / group_size); None in the float modes
    group_size: int
    bits: int
    mode: Mode = "affine"
    factor: float = 1.0
    """What the weights are to be multiplied by; 1 in the mode `affine`, whose scales are floats."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.packed.shape[0], self.packed.shape[1] * 32 // self.bits

    def __mul__(self, factor: np.float32) -> Self:
        if self.mode != "affine":  # scales of 8 bits cannot hold the product
            return replace(self, factor=self.factor * float(factor))
        return replace(self, scales=self.scales * factor, biases=self.biases * factor)

    def expanded(self) -> Floats:
        """The matrix in float32."""
        codes = unpack(self.packed, self.bits)
        if self.mode == "affine":
            groups = codes.astype(np.float32).reshape(*self.scales.shape, self.group_size)
            groups *= self.scales[..., None]
            groups += self.biases[..., None]
            return groups.reshape(self.shape)
        mode = FLOAT_MODES[self.mode]
        groups = mode.values[codes].reshape(*self.scales.shape, self.group_size)
        with np.errstate(invalid="ignore", over="ignore"):  # as MLX: a damaged scale gives NaN
            groups *= mode.scales[self.scales][..., None]
        groups *= np.float32(self.factor)
        return groups.reshape(self.shape)


def unpack(packed: Words, bits: int) -> NDArray[np.uint8]:
    """The codes (out, in) in words (out, in * bits / 32). Codes may lie across two words.

    >>> unpack(np.array([[0x76543210, 0xFEDCBA98]], np.uint32), 4).tolist()
    [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]]
    """
    period = 32 // gcd(bits, 32)  # so many codes fill whole words
    words = packed.reshape(len(packed), -1, period * bits // 32)
    codes = np.empty((*words.shape[:2], period), np.uint8)
    for number in range(period):
        word, shift = divmod(number * bits, 32)
        code = words[..., word] >> np.uint32(shift)
        if shift + bits > 32:
            code |= words[..., word + 1] << np.uint32(32 - shift)
        codes[..., number] = code & np.uint32(2**bits - 1)
    return codes.reshape(len(packed), -1)


def pack(codes: NDArray[np.uint8], bits: int) -> Words:
    """Words that hold the codes (out, in), as `unpack` reads them."""
    period = 32 // gcd(bits, 32)
    parts = codes.reshape(len(codes), -1, period)
    words = np.zeros((*parts.shape[:2], period * bits // 32), np.uint32)
    for number in range(period):
        word, shift = divmod(number * bits, 32)
        code = parts[..., number].astype(np.uint32)
        words[..., word] |= code << np.uint32(shift)
        if shift + bits > 32:
            words[..., word + 1] |= code >> np.uint32(32 - shift)
    return words.reshape(len(codes), -1)


def quantize(weight: Floats, group_size: int, bits: int, mode: Mode = "affine") -> Quantized:
    """The matrix (out, in) in so many bits, rounded as `mx.quantize` rounds.

    In the mode `affine`, the end of a group's range that is further from zero is kept exactly, and
    so is zero. The other modes have bits and a group size of their own.

    >>> quantized = quantize(np.array([[0, 1.4, 2, 15] * 8], np.float32), group_size=32, bits=4)
    >>> quantized.packed.shape, quantized.expanded()[0, :4].tolist()
    ((1, 4), [0.0, 1.0, 2.0, 15.0])
    """
    outputs, inputs = weight.shape
    groups = weight.reshape(outputs, inputs // group_size, group_size)
    if mode != "affine":
        return _quantize_to_floats(groups, mode)
    low: Floats = groups.min(axis=-1)
    high: Floats = groups.max(axis=-1)
    steps = np.float32(2**bits - 1)
    downwards = np.abs(low) > np.abs(high)
    step = np.maximum((high - low) / steps, np.float32(1e-7))
    step = np.where(downwards, step, -step)
    edge = np.where(downwards, low, high)
    at_zero = np.rint(edge / step)  # the whole number of steps from the edge to zero
    scales = np.where(at_zero != 0, edge / np.where(at_zero != 0, at_zero, 1), step)
    biases = np.where(at_zero != 0, edge, np.float32(0))
    codes = np.rint((groups - biases[..., None]) / scales[..., None]).clip(0, steps)
    packed = pack(codes.astype(np.uint8).reshape(weight.shape), bits)
    return Quantized(packed, scales.astype(np.float32), biases.astype(np.float32), group_size, bits)


def _quantize_to_floats(groups: Floats, name: Mode) -> Quantized:
    """Groups (out, groups, group_size) in one of the float modes: the largest value of a group
    becomes about the largest one that a code can hold."""
    mode = FLOAT_MODES[name]
    largest = np.abs(groups).max(axis=-1) / np.nanmax(mode.values)
    scales = next_power(largest) if mode.scales is E8M0 else nearest(largest, mode.scales)
    steps = mode.scales[scales][..., None]
    values = np.divide(groups, steps, out=np.zeros_like(groups), where=steps > 0)
    codes = nearest(values, mode.values).reshape(len(groups), -1)
    return Quantized(pack(codes, mode.bits), scales, None, mode.group_size, mode.bits, name)


def join(parts: list[Floats | Quantized]) -> Floats | Quantized:
    """Matrices (out, in) on top of each other: packed, if all are packed in the same way."""
    if len(parts) == 1:
        return parts[0]
    packed = [part for part in parts if isinstance(part, Quantized)]
    ways = {(part.mode, part.group_size, part.bits, part.factor) for part in packed}
    if len(packed) < len(parts) or len(ways) > 1:
        return np.concatenate([expand(part) for part in parts])
    biased = packed[0].biases is not None
    return replace(
        packed[0],
        packed=np.concatenate([part.packed for part in packed]),
        scales=np.concatenate([part.scales for part in packed]),
        biases=np.concatenate([part.biases for part in packed]) if biased else None,
    )


def expand(weight: Floats | Quantized) -> Floats:
    """The matrix in float32."""
    return weight.expanded() if isinstance(weight, Quantized) else weight
