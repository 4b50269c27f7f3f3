"""The threads that tokenise for all models. No request waits for another's long texts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from embedsvc.texts.pieces import PIECE
from embedsvc.texts.steps import Steps, take_step

T = TypeVar("T")


class Tokenizing:
    """One thread for short requests, and one on which long ones take turns step by step."""

    def __init__(self, name: str = "tokenize") -> None:
        self._short = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._long = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-long")

    async def run(self, work: Steps[T], characters: int) -> T:
        """The result of work in steps that tokenises so many characters.

        If it is cancelled, no further step is done.
        """
        loop = asyncio.get_running_loop()
        threads = self._short if characters <= PIECE else self._long
        step = partial(take_step, work)
        while (result := await loop.run_in_executor(threads, step)) is None:
            pass
        return result.value

    def close(self) -> None:
        """Start nothing more, and return when what runs has ended."""
        for threads in (self._short, self._long):
            threads.shutdown(cancel_futures=True)
