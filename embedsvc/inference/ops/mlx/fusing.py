"""Small operations that MLX makes one kernel of, each by itself or with what comes before it.

On a GPU a kernel takes some microseconds to start, whatever it does, and reads and writes memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import mlx.core as mx

from embedsvc.inference.ops.mlx.rope import turn

Function = Callable[..., mx.array]
Activation = Literal["gelu", "gelu_tanh", "silu"]


class Fused:
    """Functions of elements, each compiled to one kernel for all shapes, or not if not `compiled`.

    `mx.compile` looks no more than 11 steps deep, so that their formulas are short, and have the
    longer factor first.
    """

    def __init__(self, *, compiled: bool) -> None:
        def fuse(function: Function) -> Function:
            return mx.compile(function, shapeless=True) if compiled else function

        self.turn = fuse(turn)
        self.activations: dict[Activation, tuple[Function, Function]] = {
            name: (fuse(partial(_alone, factor)), fuse(partial(_gated, factor)))
            for name, factor in FACTORS.items()
        }
        """Each by itself, and multiplied with a second array."""


class LastStep:
    """The last step of a pass, where the next may become part of it.

    MLX computes only what is asked for. So the step is made anew together with what follows, and
    costs nothing as it was.
    """

    def __init__(self) -> None:
        self.clear()

    def note(self, result: mx.array, operation: str, join: Callable[[mx.array], mx.array]) -> None:
        """`join(other)` is `result` and that operation with another array, in one kernel."""
        self._step = result, operation, join

    def join(self, operation: str, x: mx.array, y: mx.array) -> mx.array | None:
        """The operation as part of the last step, if that gave x or y and can be joined with it."""
        if self._step is None or self._step[1] != operation:
            return None
        result, _, join = self._step
        if x is result:
            return join(y)
        return join(x) if y is result else None

    def clear(self) -> None:
        """Forget the pass."""
        self._step: tuple[mx.array, str, Callable[[mx.array], mx.array]] | None = None


def _gelu(x: mx.array) -> mx.array:
    return 0.5 * (1 + mx.erf(x * 0.7071067811865476))


def _gelu_tanh(x: mx.array) -> mx.array:
    # (1 + tanh(u)) / 2 is sigmoid(2 u).
    return mx.sigmoid(x * (1.5957691216 + 0.0713548162726 * mx.square(x)))


FACTORS: dict[Activation, Function] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": mx.sigmoid,
}
"""What each activation multiplies a float32 with."""


def _alone(factor: Function, x: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (factor(wide) * wide).astype(x.dtype)


def _gated(factor: Function, x: mx.array, gate: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (factor(wide) * (wide * gate)).astype(x.dtype)
