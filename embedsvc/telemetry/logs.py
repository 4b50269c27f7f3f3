"""The log: a line for each request, and what else there is to say, in words or as JSON.

A thread of its own writes it, so that no slow reader and no full disk holds up a request.
Of a request there is what it cost; never what was asked or with which key. Whatever a client can
choose (a path) is written so that it stays within its line.
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
"""For so long, lines about requests are gathered into one write."""
MOST_WAITING = 20_000
"""Lines; what comes while so many wait to be written is lost, and counted."""
PROBES = frozenset({"/health", "/ready", "/metrics", "/dashboard/{name}"})
"""Routes that are asked for all the time, or many at once: told of at `debug`, or failing."""
LONGEST_PATH = 200
LONGEST_LINE = 1000
"""Characters of a line of a message, or of a trace."""
MOST_LINES = 100
"""Of a message or of a trace, from its beginning, and as many from its end."""
MOST_FRAMES = 40
"""Of a trace, the innermost."""
LEVELS = {getattr(logging, name.upper()): name for name in ("debug", "info", "warning", "error")}


class Stream(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> None: ...


class Log(logging.Handler):
    """Writes to a stream from a thread of its own; what it cannot write is lost, and counted."""

    def __init__(self, stream: Stream, *, json: bool, level: str) -> None:
        super().__init__()
        self.lost = 0
        self._stream = stream
        self._json = json
        self._level: int = logging.getLevelNamesMapping()[level.upper()]
        self._requests: list[Record] = []
        self._queue: SimpleQueue[list[Record] | list[logging.LogRecord] | None] = SimpleQueue()
        self._counting = Lock()
        self._waiting = 0
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def tell(self, request: Record) -> None:
        """Write a line about a request that is over. On the event loop."""
        if level_of(request) < self._level:
            return
        if not self._requests:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush_requests)
        self._requests.append(request)

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()  # now: a wrong format is the caller's bug
        self._put([record])

    def close(self) -> None:
        """Write what waits, for a second at most."""
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
            except (OSError, ValueError):  # a full disk, a pipe that nobody reads any more
                with self._counting:
                    self.lost += len(lines)
            with self._counting:
                self._waiting -= len(lines)

    def _line(self, told: Record | logging.LogRecord) -> str:
        if isinstance(told, Record):
            when = timestamp(time.time() - time.perf_counter() + told.began + told.total)
            write = request_as_json if self._json else request_in_words
            return write(told, when)
        level, message = told.levelname.lower(), _bounded(told.getMessage())
        trace = _trace(told)
        when = timestamp(told.created)
        if self._json:
            message = "\n".join(map(within_line, message.split("\n")))
            fields = {"time": when, "level": level, "logger": told.name, "message": message}
            if trace:
                fields["trace"] = "\n".join(map(within_line, trace.split("\n")))
            return orjson.dumps(fields).decode() + "\n"
        # What has several lines of its own begins none that could be taken for another entry.
        lines = [*message.split("\n"), *trace.splitlines()]
        return f"{when} {level:<7} " + "\n  | ".join(map(within_line, lines)) + "\n"


def open_log(stream: Stream, *, json: bool, level: str) -> Log:
    """Have everything logged from now on written there."""
    log = Log(stream, json=json, level=level)
    root = logging.getLogger()
    root.handlers = [log]
    root.setLevel(logging.WARNING)  # of libraries
    logging.getLogger("embedsvc").setLevel(level.upper())
    logging.captureWarnings(True)
    return log


def level_of(request: Record) -> int:
    """How much a request matters: failures most, probes least."""
    if request.status in (429, 503):
        return logging.WARNING
    if request.status >= 500:
        return logging.ERROR
    return logging.DEBUG if request.route in PROBES else logging.INFO


def request_as_json(request: Record, when: str) -> str:
    """A request's line for programs; times in milliseconds."""
    line = (
        f'{{"time":"{when}","level":"{LEVELS[level_of(request)]}","message":"request",'
        f'"id":"{request.id.decode("latin-1")}","method":{_quoted(request.method)},'
        f'"path":{_quoted(_path(request))},"status":{request.status},'
    )
    if request.refusal:
        line += f'"refusal":"{request.refusal}",'
    if request.model:
        line += (
            f'"model":{_quoted(request.model)},"texts":{request.texts},"tokens":{request.tokens},'
            f'"tokenize_ms":{request.tokenize * 1000:.3f},"queue_ms":{request.queue * 1000:.3f},'
            f'"forward_ms":{request.forward * 1000:.3f},'
        )
    return f'{line}"total_ms":{request.total * 1000:.3f}}}\n'


def request_in_words(request: Record, when: str) -> str:
    """A request's line for people."""
    line = (
        f"{when} {LEVELS[level_of(request)]:<7} {request.id.decode('latin-1')} "
        f"{within_line(request.method)} {_path(request)} {request.status} "
    )
    if request.refusal:
        line += f"{request.refusal} "
    if request.model:
        line += (
            f"{request.model}: {request.texts} texts, {request.tokens} tokens, "
            f"queue {request.queue * 1000:.1f} ms, forward {request.forward * 1000:.1f} ms, "
        )
    return f"{line}in {request.total * 1000:.1f} ms\n"


def _trace(told: logging.LogRecord) -> str:
    """Where it went wrong: the innermost frames of what may be as deep as a client nests."""
    if told.exc_info is None or told.exc_info[0] is None:
        return ""
    return _bounded(
        "".join(traceback.format_exception(*told.exc_info, limit=-MOST_FRAMES)).rstrip()
    )


def _bounded(text: str) -> str:
    """A text's first and last lines, where they are many, and of each the beginning."""
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
    """UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(2)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
