"""Weights of 4 or 8 bits as MLX packs them: a weight is scale * q + bias, where q is a whole number
and scale and bias are the same for a group of neighbours in a row."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix (out, in). It can be joined with others, and multiplied by a number, as it is."""

    packed: Any  # uint32 (out, in * bits / 32), the first value in the lowest bits
    scales: Any  # (out, in / group_size)
    biases: Any  # (out, in / group_size)
    group_size: int
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.packed.shape[0], self.packed.shape[1] * 32 // self.bits

    def __mul__(self, factor: np.float32) -> Self:
        return replace(self, scales=self.scales * factor, biases=self.biases * factor)

    def expanded(self) -> Floats:
        """The matrix in float32."""
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)
        values = (self.packed[..., None] >> shifts) & np.uint32(2**self.bits - 1)
        groups = values.reshape(*self.scales.shape, self.group_size).astype(np.float32)
        groups *= self.scales[..., None]
        groups += self.biases[..., None]
        return groups.reshape(self.shape)


def quantize(weight: Floats, group_size: int, bits: int) -> Quantized:
    """The matrix (out, in) in so many bits, rounded as `mx.quantize` rounds.

    The end of a group's range that is further from zero is kept exactly, and so is zero.

    >>> quantized = quantize(np.array([[0, 1.4, 2, 15] * 8], np.float32), group_size=32, bits=4)
    >>> quantized.packed.shape, quantized.expanded()[0, :4].tolist()
    ((1, 4), [0.0, 1.0, 2.0, 15.0])
    """
    outputs, inputs = weight.shape
    groups = weight.reshape(outputs, inputs // group_size, group_size)
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
    values = np.rint((groups - biases[..., None]) / scales[..., None]).clip(0, steps)
    values = values.astype(np.uint32).reshape(outputs, -1, 32 // bits)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    packed = np.bitwise_or.reduce(values << shifts, axis=-1)
    return Quantized(packed, scales.astype(np.float32), biases.astype(np.float32), group_size, bits)


def join(parts: list[Floats | Quantized]) -> Floats | Quantized:
    """Matrices (out, in) on top of each other: packed, if all are packed in the same way."""
    packed = [part for part in parts if isinstance(part, Quantized)]
    ways = {(part.group_size, part.bits) for part in packed}
    if len(packed) < len(parts) or len(ways) > 1:
        return np.concatenate([expand(part) for part in parts])
    return replace(
        packed[0],
        packed=np.concatenate([part.packed for part in packed]),
        scales=np.concatenate([part.scales for part in packed]),
        biases=np.concatenate([part.biases for part in packed]),
    )


def expand(weight: Floats | Quantized) -> Floats:
    """The matrix in float32."""
    return weight.expanded() if isinstance(weight, Quantized) else weight
