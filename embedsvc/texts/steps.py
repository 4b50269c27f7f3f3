"""Work in short steps, so that other work can run in between.

A function that works in steps is a generator. It yields where it may be left for a while, and
returns its result.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """The result of work in steps, which may be None."""

    value: T


def take_step(work: Steps[T]) -> Result[T] | None:
    """Do one more step. Returns the result if it was the last one, else None."""
    try:
        next(work)
    except StopIteration as ended:
        return Result(ended.value)
    return None


def run_to_end(work: Steps[T]) -> T:
    """Do all steps one after the other. Returns the result."""
    while (result := take_step(work)) is None:
        pass
    return result.value
