"""The log: a line for each request and for what else happens, in words or as JSON.

A thread of its own writes it, so that neither a slow reader nor a full disk delays a request. The
line of a request says what it cost, and never what was asked or with which key. Text that a client
can choose, such as a path, is written so that it stays within its line.
"""

import asyncio
import logging
import time
import traceback
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Protocol

import orjson

from embedsvc.telemetry.record import Record
from embedsvc.wording.plain import within_line

GATHER_SECONDS = 0.05
"""How long lines about requests are gathered into one write."""
MOST_WAITING = 20_000
"""Lines that may wait to be written. Lines that come beyond that are lost, and counted."""
PROBES = frozenset({"/health", "/ready", "/metrics", "/dashboard/{name}"})
"""Routes that are asked for all the time, or many at once. They are logged as `debug`, unless they
fail."""
LONGEST_PATH = 200
"""Characters of a path that no route answers."""
LONGEST_LINE = 1000
"""Characters of one line of a message or of a traceback."""
MOST_LINES = 100
"""Lines of a message or traceback that are kept from its beginning, and as many from its end."""
MOST_FRAMES = 40
"""Frames of a traceback that are kept, the innermost."""
LEVELS = {getattr(logging, name.upper()): name for name in ("debug", "info", "warning", "error")}


class Stream(Protocol):
    """What the log is written to, such as `sys.stderr`."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> None: ...


class Log(logging.Handler):
    """Writes to a stream from a thread of its own. What it cannot write is lost, and counted."""

    def __init__(self, stream: Stream, *, json: bool, level: str) -> None:
        super().__init__()
        self.lost = 0
        """Lines that were not written."""
        self._stream = stream
        self._json = json
        self._level: int = logging.getLevelNamesMapping()[level.upper()]
        self._requests: list[Record] = []
        """Those that are being gathered."""
        self._queue: SimpleQueue[list[Record] | list[logging.LogRecord] | None] = SimpleQueue()
        """What the thread is to write; None ends it."""
        self._counting = Lock()
        """Guards `lost` and `_waiting`, which two threads count."""
        self._waiting = 0
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def tell(self, request: Record) -> None:
        """Log a request that is over. To be called on the event loop."""
        if level_of(request) < self._level:
            return
        if not self._requests:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush_requests)
        self._requests.append(request)

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()  # here, so that a wrong format is raised where it is written
        self._put([record])

    def close(self) -> None:
        """Write what waits, and return after a second at most."""
        if self._thread.is_alive():
            self._flush_requests()
            self._queue.put(None)
            self._thread.join(1)
        super().close()

    def _flush_requests(self) -> None:
        requests, self._requests = self._requests, []
        self._put(requests)

    def _put(self, lines: list[Record] | list[logging.LogRecord]) -> None:
        with self._counting:
            if self._waiting + len(lines) > MOST_WAITING:
                self.lost += len(lines)
                return
            self._waiting += len(lines)
        self._queue.put(lines)

    def _write_all(self) -> None:
        while (lines := self._queue.get()) is not None:
            try:
                self._stream.write("".join(map(self._line, lines)))
                self._stream.flush()
            except (OSError, ValueError):  # the disk is full, or nobody reads the pipe any more
                with self._counting:
                    self.lost += len(lines)
            with self._counting:
                self._waiting -= len(lines)

    def _line(self, record: Record | logging.LogRecord) -> str:
        if isinstance(record, Record):
            when = timestamp(time.time() - time.perf_counter() + record.began + record.total)
            write = request_as_json if self._json else request_in_words
            return write(record, when)
        level, message = record.levelname.lower(), _bounded(record.getMessage())
        trace = _traceback(record)
        when = timestamp(record.created)
        if self._json:
            message = "\n".join(map(within_line, message.split("\n")))
            fields = {"time": when, "level": level, "logger": record.name, "message": message}
            if trace:
                fields["trace"] = "\n".join(map(within_line, trace.split("\n")))
            return orjson.dumps(fields).decode() + "\n"
        # Lines after the first are marked, so that none of them looks like another entry.
        lines = [*message.split("\n"), *trace.splitlines()]
        return f"{when} {level:<7} " + "\n  | ".join(map(within_line, lines)) + "\n"


def open_log(stream: Stream, *, json: bool, level: str) -> Log:
    """Write all that is logged from now on to a stream.

    `level` is the lowest that is written. Of libraries, only warnings and errors are.
    """
    log = Log(stream, json=json, level=level)
    root = logging.getLogger()
    root.handlers = [log]
    root.setLevel(logging.WARNING)
    logging.getLogger("embedsvc").setLevel(level.upper())
    logging.captureWarnings(True)
    return log


def level_of(request: Record) -> int:
    """The level of a request's line: errors for failures, `debug` for probes."""
    if request.status in (429, 503):
        return logging.WARNING
    if request.status >= 500:
        return logging.ERROR
    return logging.DEBUG if request.route in PROBES else logging.INFO


def request_as_json(request: Record, when: str) -> str:
    """The line of a request as JSON, with times in milliseconds."""
    line = (
        f'{{"time":"{when}","level":"{LEVELS[level_of(request)]}","message":"request",'
        f'"id":"{request.id.decode("latin-1")}","method":{_quoted(request.method)},'
        f'"path":{_quoted(_path(request))},"status":{request.status},'
    )
    if request.refusal:
        line += f'"refusal":"{request.refusal}",'
    if request.model:
        line += (
            f'"model":{_quoted(request.model)},"task":"{request.task}",'
            f'"texts":{request.texts},"tokens":{request.tokens},'
            f'"tokenize_ms":{request.tokenize * 1000:.3f},"queue_ms":{request.queue * 1000:.3f},'
            f'"forward_ms":{request.forward * 1000:.3f},'
        )
    return f'{line}"total_ms":{request.total * 1000:.3f}}}\n'


def request_in_words(request: Record, when: str) -> str:
    """The line of a request for people."""
    line = (
        f"{when} {LEVELS[level_of(request)]:<7} {request.id.decode('latin-1')} "
        f"{within_line(request.method)} {_path(request)} {request.status} "
    )
    if request.refusal:
        line += f"{request.refusal} "
    if request.model:
        task = "" if request.task == "embed" else f"{request.task}, "
        line += (
            f"{request.model}: {task}{request.texts} texts, {request.tokens} tokens, "
            f"queue {request.queue * 1000:.1f} ms, forward {request.forward * 1000:.1f} ms, "
        )
    return f"{line}in {request.total * 1000:.1f} ms\n"


def _traceback(record: logging.LogRecord) -> str:
    """The innermost frames of an exception, which may be as deep as a client nests its JSON."""
    if record.exc_info is None or record.exc_info[0] is None:
        return ""
    return _bounded(
        "".join(traceback.format_exception(*record.exc_info, limit=-MOST_FRAMES)).rstrip()
    )


def _bounded(text: str) -> str:
    """A text without its middle lines where it has many, and without the ends of long lines."""
    lines = text.split("\n")
    if len(lines) > 2 * MOST_LINES:
        left = len(lines) - 2 * MOST_LINES
        lines[MOST_LINES:-MOST_LINES] = [f"({left} lines left out)"]
    return "\n".join(
        line
        if len(line) <= LONGEST_LINE
        else f"{line[:LONGEST_LINE]} ({len(line) - LONGEST_LINE} characters left out)"
        for line in lines
    )


def _path(request: Record) -> str:
    return request.route or within_line(request.path[:LONGEST_PATH])


@lru_cache(256)
def _quoted(text: str) -> str:
    return orjson.dumps(within_line(text)).decode()


def timestamp(seconds: float) -> str:
    """A time since 1970 in UTC, to the millisecond.

    >>> timestamp(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(2)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
