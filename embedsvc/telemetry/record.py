"""What is told of one request when it is over: in the log, in the metrics, in traces.

Whoever has a part in answering it adds what he knows to `current`'s record, if there is one: what
is computed for nobody's request, as at load, has none.
"""

from collections.abc import Callable
from contextvars import ContextVar

from embedsvc.errors import RequestError


class Record:
    """One request. Times are seconds."""

    # Defaults are the class's: a record is made for every request, and few of them fill it all.
    route = ""
    """The path as routes are written, "" where nothing answers."""
    status = 0
    """Of the answer; 0: none was sent."""
    refusal = ""
    """What sort of error the answer is, if it is one."""
    traceparent: bytes | None = None
    """The caller's span, if he traces."""
    gave_way: RequestError | None = None
    """The refusal, where it was ended to make room for others."""
    hang_up: Callable[[], None] | None = None
    """Ends its connection at once, where that can be done."""
    model = ""
    texts = 0
    tokens = 0
    tokenize = 0.0
    tokenized = 0.0
    """When that was done, by `time.perf_counter`."""
    queue = 0.0
    """From when its texts were to be computed until the first of them was; 0 where it found them
    computed, or being computed for others."""
    queued = 0.0
    """When they were, by `time.perf_counter`."""
    forward = 0.0
    """From the end of `queue` until the last of them had been."""
    total = 0.0

    def __init__(self, began: float, identity: bytes, method: str, path: str) -> None:
        self.began = began
        """When it came in, by `time.perf_counter`."""
        self.id = identity
        self.method = method
        self.path = path
        """As the client chose it: not for labels."""


current: ContextVar[Record | None] = ContextVar("current", default=None)
"""The request that this task, and tasks it started, work for."""
