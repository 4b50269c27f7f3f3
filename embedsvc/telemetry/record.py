"""The record of one request, which goes to the log, the metrics and traces when it is over.

Every module that helps to answer a request adds what it knows to the record in `current`. What is
computed for no request, as when a model is loaded, has no record.
"""

from collections.abc import Callable
from contextvars import ContextVar

from embedsvc.catalog.cards import Task
from embedsvc.errors import RequestError


class Record:
    """One request. Durations are in seconds."""

    # The defaults belong to the class: every request makes a record, and few of them fill it all.
    route = ""
    """The path as its route writes it: `/v1/models/{id}`. "" where no route answers."""
    status = 0
    """The status of the answer; 0 if none was sent."""
    refusal = ""
    """The kind of error that the answer is, if it is one; see `RequestError.reason`."""
    traceparent: bytes | None = None
    """The header of that name, by which a caller traces the request."""
    gave_way: RequestError | None = None
    """The error, where the request was ended to make room for others."""
    hang_up: Callable[[], None] | None = None
    """Ends the request's connection at once, where that can be done."""
    model = ""
    """The id of the model's card."""
    task: Task | None = None
    """What the model was asked for."""
    texts = 0
    """How many inputs the request has; of a request for scores, how many documents."""
    tokens = 0
    """How many tokens they have together."""
    tokenize = 0.0
    """How long it took to tokenise them."""
    tokenized = 0.0
    """When they were tokenised, by `time.perf_counter`."""
    queue = 0.0
    """From submission until the first text went to the device; 0 if all were cached or shared."""
    queued = 0.0
    """When they were submitted, by `time.perf_counter`."""
    forward = 0.0
    """From the end of `queue` until the last text was computed."""
    total = 0.0
    """From the request's arrival to the end of its answer."""

    def __init__(self, began: float, identity: bytes, method: str, path: str) -> None:
        self.began = began
        """When the request arrived, by `time.perf_counter`."""
        self.id = identity
        self.method = method
        self.path = path
        """The path that is routed, with slashes too many left out. It is no label of a metric:
        clients may ask for any number of paths."""


current: ContextVar[Record | None] = ContextVar("current", default=None)
"""The record of the request that the running task works for, and the tasks that it starts."""
