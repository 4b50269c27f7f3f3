"""Rotary positions on MLX.

MLX's own `mx.fast.rope` is not used: on Metal it takes cosines by the fast instruction, whose error
is some 1e-4 in the first turn and grows with the position, and each step towards an angle is
rounded otherwise than in the models' own code. Tables cost as many kernels: one.
"""

# MLX's stubs leave *args untyped, in reshape among others.
# pyright: reportUnknownMemberType=false

from typing import NamedTuple

import mlx.core as mx


class Turns(NamedTuple):
    """What every row rotates by, of one table: (N, 1, 1, half) each."""

    cos: mx.array
    sin: mx.array


class TurnCache:
    """The turns of each table of a pass, looked up once for all of its layers."""

    def __init__(self) -> None:
        self._signs = mx.array([[-1.0], [1.0]])
        self.clear()

    def take(self, table: mx.array, positions: mx.array) -> Turns:
        """The rows of a table at those positions."""
        if positions is not self._positions:
            self._positions, self._turns = positions, {}
        turns = self._turns.get(id(table))
        if turns is None:
            half = table.shape[1] // 2
            rows = table[positions][:, None, None]
            turns = self._turns[id(table)] = Turns(rows[..., :half], rows[..., half:])
        return turns

    def operands(self, x: mx.array, turns: Turns) -> tuple[mx.array, ...]:
        """What `turn` takes for heads side by side, x (N, heads * size)."""
        heads = x.reshape(x.shape[0], -1, 2, turns.cos.shape[-1])  # (N, heads, halves, half)
        return heads, heads[:, :, ::-1], *turns, self._signs

    def clear(self) -> None:
        """Forget the pass."""
        self._positions: mx.array | None = None
        self._turns: dict[int, Turns] = {}


def turn(x: mx.array, other: mx.array, cos: mx.array, sin: mx.array, signs: mx.array) -> mx.array:
    """Each half of each head, turned; `other` has the two halves the other way round."""
    return (x * cos + other * (sin * signs)).astype(x.dtype)
