"""A clock for what takes one."""


class Clock:
    """Time in seconds that passes when a test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    monotonic = __call__
    """So that it can stand for the module `time` too."""
