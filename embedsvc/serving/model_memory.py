"""The memory that models may take together, and how much of it each takes."""

import logging
from collections.abc import Hashable

from embedsvc.errors import DoesNotFit
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.wording.quantities import bytes_in_words

log = logging.getLogger(__name__)
SHARE = 0.7
"""Share of the device's memory that models may take where no limit is set. Passes, caches and other
processes need some too."""


def weight_limit(hardware: Hardware, asked: int | None) -> int:
    """Bytes that the weights of all models may take, `asked` where the operator says so.

    It is never more than what passes leave of the memory that there is.
    """
    most = hardware.memory - hardware.pass_memory
    return min(int(hardware.memory * SHARE) if asked is None else asked, most)


class ModelMemory:
    """Counts the bytes that each holder has, against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[Hashable, int] = {}

    @property
    def used(self) -> int:
        return sum(self._held.values())

    def fits(self, size: int) -> bool:
        """Whether so many bytes more are within the limit."""
        return self.used + size <= self.limit

    def take(self, holder: Hashable, size: int) -> None:
        self._held[holder] = size

    def give_back(self, holder: Hashable) -> None:
        self._held.pop(holder, None)

    def check(self, model: str, size: int, kept: int) -> None:
        """Raise `DoesNotFit` if a model can never fit, since `kept` bytes are not given back."""
        if size + kept > self.limit:
            others = f", of which {bytes_in_words(kept)} are pinned" if kept else ""
            raise DoesNotFit(
                f"model `{model}` needs {bytes_in_words(size)}, and models may take "
                f"{bytes_in_words(self.limit)}{others} (--max-memory)"
            )


def memory_for_models(hardware: Hardware, asked: int | None) -> ModelMemory:
    """The memory of a server's models. That there is less than the operator asks for is logged."""
    limit = weight_limit(hardware, asked)
    if asked is not None and limit < asked:
        log.warning(
            "max_memory is %s, and the device has %s for weights, beside what passes need",
            bytes_in_words(asked),
            bytes_in_words(limit),
        )
    return ModelMemory(limit)
