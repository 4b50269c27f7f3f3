"""Work in steps, none of them long: whoever has it done lets others go in between.

A function that works in steps is a generator. It yields where it may be left alone for a while, and
returns its result.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What work in steps came to."""

    value: T


def take_step(work: Steps[T]) -> Result[T] | None:
    """Do one more step: the result if it was the last."""
    try:
        next(work)
    except StopIteration as ended:
        return Result(ended.value)
    return None


def finish(work: Steps[T]) -> T:
    """Do all steps there are, at once."""
    while (result := take_step(work)) is None:
        pass
    return result.value
