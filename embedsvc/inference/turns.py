"""Taking turns on a device all of whose work has to be done on one thread, as MLX's does.

A model is loaded on another thread. Whatever of that touches the device is handed to the device's
thread in short steps, and batches of other models run between them. `load_encoder` says which
calls are steps, and `Device` how a step gets its turn; nobody else knows of it.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")


class Stepwise(Protocol):
    """Gives an object back in a form in which each call of a method is one step on the device."""

    def __call__(self, target: T, /) -> T: ...


def on_this_thread(target: T) -> T:
    """The `Stepwise` of a device on which any thread may work: the object itself."""
    return target


class Turns:
    """The `Stepwise` of a device with one thread."""

    def __init__(self, take_turn: Callable[[Callable[[], Any]], Any]) -> None:
        """`take_turn(work)` runs `work()` on the device's thread and returns its result."""
        self._take_turn = take_turn

    def __call__(self, target: T, /) -> T:
        return cast(T, _Stepping(target, self._take_turn))


class _Stepping:
    """Looks like its target; a call of a method waits for its turn, and for the result."""

    def __init__(self, target: Any, take_turn: Callable[[Callable[[], Any]], Any]) -> None:
        self._target = target
        self._take_turn = take_turn

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def step(*arguments: Any) -> Any:
            return self._take_turn(lambda: value(*arguments))

        return step
