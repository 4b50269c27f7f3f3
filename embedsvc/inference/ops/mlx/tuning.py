"""Choices that make passes faster on some hardware only, made by trying them."""

from collections.abc import Callable


def choose_faster(ops: object, switch: str, seconds: Callable[[], float]) -> None:
    """Set an attribute of the operations to True where that is faster, else to False.

    `seconds()` runs a typical pass and returns how long it took.
    """
    fastest: dict[bool, float] = {}
    for value in (False, True):
        setattr(ops, switch, value)
        seconds()  # compiles kernels
        fastest[value] = min(seconds() for _ in range(5))
    setattr(ops, switch, fastest[True] < 0.97 * fastest[False])
