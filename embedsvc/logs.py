"""The log: a line for each request, and what else there is to say, in words or as JSON.

A thread of its own writes it, so that no slow reader and no full disk holds up a request.
Of a request there is what it cost; never what was asked or with which key. Whatever a client can
choose (a path) is written so that it stays within its line.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol

import orjson

from embedsvc.record import Record

GATHER_SECONDS = 0.05
"""For so long, lines about requests are gathered into one write."""
MOST_WAITING = 20_000
"""Lines; what comes while so many wait to be written is lost, and counted."""
PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that are asked for all the time: told of at `debug`, unless they fail."""
LONGEST_PATH = 200


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
            when = time.time() - time.perf_counter() + told.began + told.total
            level = logging.getLevelName(level_of(told)).lower()
            fields = {"time": timestamp(when), "level": level, "message": "request"}
            fields |= fields_of(told)
            return _json_line(fields) if self._json else f"{fields['time']} {words(level, told)}\n"
        level, message = told.levelname.lower(), told.getMessage()
        trace = logging.Formatter().formatException(told.exc_info) if told.exc_info else ""
        when = timestamp(told.created)
        if self._json:
            fields = {"time": when, "level": level, "logger": told.name, "message": message}
            return _json_line(fields | ({"trace": trace} if trace else {}))
        lines = "".join(f"\n  | {within_line(line)}" for line in trace.splitlines())
        # What has several lines of its own begins none that could be taken for another entry.
        said = "\n  | ".join(within_line(line) for line in message.split("\n"))
        return f"{when} {level:<7} {said}{lines}\n"


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


def fields_of(request: Record) -> dict[str, Any]:
    """What there is to say of a request; times in milliseconds."""
    fields: dict[str, Any] = {
        "id": request.id.decode("latin-1"),
        "method": request.method,
        "path": request.route or within_line(request.path[:LONGEST_PATH]),
        "status": request.status,
    }
    if request.refusal:
        fields["refusal"] = request.refusal
    if request.model:
        fields |= {"model": request.model, "texts": request.texts, "tokens": request.tokens}
        for name in ("tokenize", "queue", "forward"):
            fields[f"{name}_ms"] = round(getattr(request, name) * 1000, 3)
    fields["total_ms"] = round(request.total * 1000, 3)
    return fields


def words(level: str, request: Record) -> str:
    """The same for people."""
    path = request.route or within_line(request.path[:LONGEST_PATH])
    said = [f"{level:<7} {request.id.decode('latin-1')} {request.method} {path} {request.status}"]
    if request.refusal:
        said.append(request.refusal)
    if request.model:
        said += [
            f"{request.model}: {request.texts} texts, {request.tokens} tokens,",
            f"queue {request.queue * 1000:.1f} ms, forward {request.forward * 1000:.1f} ms,",
        ]
    said.append(f"in {request.total * 1000:.1f} ms")
    return " ".join(said)


def within_line(text: str) -> str:
    """Text without anything that would end the line, move the cursor, or hide what is there."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _json_line(fields: dict[str, Any]) -> str:
    return orjson.dumps(fields, default=str).decode() + "\n"
