"""Taking turns on a device whose work must all be done on one thread."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class InTurn(Protocol):
    """Has work done on the device, in turn with other work there, and waits for its result."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def at_once(work: Callable[[], T]) -> T:
    """An `InTurn` for devices on which any thread may work."""
    return work()


class Stepwise:
    """Operations, each call of which takes its turn on the device."""

    def __init__(self, ops: Any, in_turn: InTurn) -> None:
        self._ops = ops
        self._in_turn = in_turn

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ops, name)
        if not callable(value):
            return value

        def step(*given: Any) -> Any:
            return self._in_turn(lambda: value(*given))

        return step
