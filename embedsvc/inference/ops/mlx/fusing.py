"""Small operations that MLX makes one kernel of, each by itself or with what comes before it.

On a GPU a kernel takes some microseconds to start, whatever it does, and reads and writes memory.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx

from embedsvc.inference.ops.activations import Name
from embedsvc.inference.ops.mlx.activations import FACTORS, FUNCTIONS, FactorName
from embedsvc.inference.ops.mlx.rope import turn

Function = Callable[..., mx.array]


class Fused:
    """Functions of elements, each compiled to one kernel for all shapes, or not if not `compiled`.

    `mx.compile` looks no more than 11 steps deep, so that their formulas are short, and have the
    longer factor first.
    """

    def __init__(self, *, compiled: bool) -> None:
        def fuse(function: Function) -> Function:
            return mx.compile(function, shapeless=True) if compiled else function

        self.turn = fuse(turn)
        self.factors: dict[FactorName, tuple[Function, Function]] = {
            name: (fuse(partial(_alone, factor)), fuse(partial(_gated, factor)))
            for name, factor in FACTORS.items()
        }
        """Activations that multiply x with a factor, each by itself, and with a second array."""
        self.activations: dict[Name, Function] = {
            name: fuse(partial(_widened, function)) for name, function in FUNCTIONS.items()
        }
        """The others, the longest of which take two."""


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


def _widened(function: Function, x: mx.array, *learned: float) -> mx.array:
    return function(x.astype(mx.float32), *learned).astype(x.dtype)


def _alone(factor: Function, x: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (factor(wide) * wide).astype(x.dtype)


def _gated(factor: Function, x: mx.array, gate: mx.array) -> mx.array:
    wide = x.astype(mx.float32)
    return (factor(wide) * (wide * gate)).astype(x.dtype)
