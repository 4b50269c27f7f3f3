"""What is told of one request when it is over: in the log, in the metrics, in traces.

Whoever has a part in answering it adds what he knows to `current`'s record, if there is one: what
is computed for nobody's request, as at load, has none.
"""

from contextvars import ContextVar


class Record:
    """One request. Times are seconds."""

    __slots__ = (
        "began",
        "body",
        "forward",
        "id",
        "method",
        "model",
        "path",
        "queue",
        "refusal",
        "route",
        "status",
        "texts",
        "tokenize",
        "tokens",
        "total",
    )

    def __init__(self, began: float, identity: bytes, method: str, path: str) -> None:
        self.method = method
        self.path = path
        """As the client chose it: not for labels."""
        self.began = began
        """When it came in, by `time.perf_counter`."""
        self.id = identity
        self.route = ""
        """The path as routes are written, "" where nothing answers."""
        self.status = 0
        """Of the answer; 0: none was sent."""
        self.refusal = ""
        """What sort of error the answer is, if it is one."""
        self.body = 0
        """Bytes of it that were read."""
        self.model = ""
        self.texts = 0
        self.tokens = 0
        self.tokenize = 0.0
        self.queue = 0.0
        """From when its texts were to be computed until the first of them was; 0 where it found
        them computed, or being computed for others."""
        self.forward = 0.0
        """From then until the last of them had been."""
        self.total = 0.0


current: ContextVar[Record | None] = ContextVar("current", default=None)
"""The request that this task, and tasks it started, work for."""
