"""How much memory the models that are loaded may take together, and how much each takes."""

from collections.abc import Hashable

from embedsvc.errors import DoesNotFit

SHARE = 0.7
"""Of the device's memory, where no limit is set: passes, caches and others need some too."""


class Memory:
    """Who holds how much of a limited memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[Hashable, int] = {}

    @property
    def used(self) -> int:
        return sum(self._held.values())

    def fits(self, size: int) -> bool:
        """Whether there is room for so many bytes."""
        return self.used + size <= self.limit

    def take(self, holder: Hashable, size: int) -> None:
        self._held[holder] = size

    def give_back(self, holder: Hashable) -> None:
        self._held.pop(holder, None)

    def check(self, model: str, size: int, kept: int) -> None:
        """Raises `DoesNotFit` if there can be no room, since `kept` bytes are never given back."""
        if size + kept > self.limit:
            others = f", of which {in_words(kept)} are pinned" if kept else ""
            raise DoesNotFit(
                f"model `{model}` needs {in_words(size)}, and models may take "
                f"{in_words(self.limit)}{others} (--max-memory)"
            )


def in_words(size: int) -> str:
    """Bytes as people say them: 1.5 GB."""
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.3g} {unit}"
    return f"{size} bytes"
