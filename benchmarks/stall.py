"""python -m benchmarks.stall: whether anybody waits for somebody else's largest request.

Starts a server and sends it, one after the other, the largest requests that its limits allow, to
every route that it has; meanwhile another process asks for `/health` and for the vector of a text
that is in the cache, over and over. A case holds if those are answered within a tenth of a second,
and if memory does not grow beyond 300 MiB and four times the body.
"""

import argparse
import http.client
import json
import multiprocessing
import socket
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.server import Server, free_port, running
from benchmarks.stall_cases import MODEL, Case, all_cases
from embedsvc.settings import Settings
from embedsvc.web.app import create_app

MOST_WAIT = 100.0
"""How many milliseconds other clients may wait."""
MOST_MEMORY = 300.0
"""How many MiB more than an idle server and four times the body a request may take."""
HOLD_SECONDS = 2.0
"""Seconds for which clients do not read, or stop sending."""
TIMEOUT_SECONDS = 120.0
PAUSE_SECONDS = 0.005
"""Seconds between two requests of the clients that ask all the time."""
MIB = 1 << 20


@dataclass
class Waits:
    """How long other clients waited, in milliseconds."""

    most: float
    median: float
    refused: int
    """How many of their requests had no answer, or another status than 200."""


@dataclass
class Result:
    """The result of a case."""

    case: str
    body_mib: float
    status: str
    seconds: float
    waits: Waits
    memory_mib: float | None

    @property
    def verdict(self) -> str:
        wrong = ["others wait"] * (self.waits.most > MOST_WAIT)
        wrong += ["others are refused"] * (self.waits.refused > 0)
        most = MOST_MEMORY + 4 * self.body_mib
        wrong += ["memory"] * (self.memory_mib is not None and self.memory_mib > most)
        return ", ".join(wrong) or "holds"


class Others:
    """A process that asks all the time. It does not wait for the one that sends the cases."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_ask, args=(port, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def begin(self) -> None:
        self._pipe.send("begin")
        self._pipe.recv()

    def end(self) -> Waits:
        """Wait until the requests that are under way are answered."""
        self._pipe.send("end")
        return self._pipe.recv()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _ask(port: int, pipe: Connection) -> None:
    """Ask two kinds of requests on two threads, until the process ends."""
    body = json.dumps({"model": MODEL, "input": "somebody else's text"})
    questions = [("GET", "/health", None), ("POST", "/v1/embeddings", body)]
    answered = [threading.Event() for _ in questions]
    waits: list[list[float]] = [[] for _ in questions]
    refused = [0]

    def keep_asking(number: int, method: str, path: str, body: str | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        headers = {"content-type": "application/json"}
        while True:
            began = time.perf_counter()
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                refused[0] += answer.status != 200
            except (OSError, http.client.HTTPException):
                refused[0] += 1
                connection.close()
            waits[number].append(1000 * (time.perf_counter() - began))
            answered[number].set()
            time.sleep(PAUSE_SECONDS)

    for number, question in enumerate(questions):
        threading.Thread(target=keep_asking, args=(number, *question), daemon=True).start()
    pipe.send("here")
    while True:
        command = pipe.recv()
        for event in answered:
            event.clear()
        for event in answered:
            event.wait()
        if command == "begin":
            for each in waits:
                each.clear()
            refused[0] = 0
            pipe.send("begun")
        else:
            found = [wait for each in waits for wait in each]
            pipe.send(Waits(max(found), statistics.median(found), refused[0]))


def send(case: Case, body: bytes, port: int) -> str:
    """Send a case, and return the status of its answer."""
    statuses: list[str] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(_send(case, body, port)))
        for _ in range(case.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return ", ".join(sorted(set(statuses)))


def _send(case: Case, body: bytes, port: int) -> str:
    head = f"{case.method} {case.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
    if case.method == "POST":
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        if case.silent or case.unread:
            connection.settimeout(HOLD_SECONDS)
        with suppress(OSError):  # the server may answer and close the connection before all is sent
            connection.sendall(head.encode() + b"\r\n")
            connection.sendall(memoryview(body)[: len(body) - case.silent])
        if case.unread:
            time.sleep(HOLD_SECONDS)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            stream = (answer.getheader("content-type") or "").startswith("text/event-stream")
            if not case.unread and not stream:  # that would never end
                answer.read()
        except TimeoutError:
            return "silence"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return str(answer.status)


def run(server: Server, cases: Sequence[Case]) -> list[Result]:
    """Run each case by itself, once the server is idle again."""
    others = Others(server.port)
    results: list[Result] = []
    try:
        for case in cases:
            body = case.body()
            idle = _memory(server, "VmRSS", anew=True)
            others.begin()
            began = time.perf_counter()
            status = send(case, body, server.port)
            seconds = time.perf_counter() - began
            waits = others.end()
            most = _memory(server, "VmHWM")
            grown = None if idle is None or most is None else most - idle
            size = len(body) * case.clients / MIB
            results.append(Result(case.name, size, status, seconds, waits, grown))
            print(row(results[-1]), flush=True)
    finally:
        others.close()
    return results


def _memory(server: Server, name: str, *, anew: bool = False) -> float | None:
    """MiB that are resident: now, or at most since the last call with `anew` (Linux)."""
    folder = Path(f"/proc/{server.pid}")
    if not folder.exists():
        return None
    if anew:
        (folder / "clear_refs").write_text("5")
    lines = (folder / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


HEADER = (
    "| case | body, MiB | status | seconds | others wait at most, ms | median | memory, MiB | |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(result: Result) -> str:
    """A line of the table."""
    memory = "" if result.memory_mib is None else f"{result.memory_mib:.0f}"
    return (
        f"| {result.case} | {result.body_mib:.1f} | {result.status} | {result.seconds:.1f} "
        f"| {result.waits.most:.0f} | {result.waits.median:.1f} | {memory} | {result.verdict} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=__doc__)
    parser.add_argument("--cases", default="", help="those with this in their name; default: all")
    parser.add_argument("--json", type=Path, help="where to write the results too")
    parser.add_argument("--log", type=Path, default=Path("stall.log"), help="the server's")
    given = parser.parse_args()
    settings = Settings()
    cases, missing = all_cases(create_app(settings).routes, settings.max_body_bytes)
    cases = [case for case in cases if given.cases in case.name]
    port = free_port()
    command = [sys.executable, "-m", "embedsvc", "serve", "--port", str(port)]
    with running(
        command,
        {},
        port=port,
        path="/v1/embeddings",
        model=MODEL,
        log=given.log,
        cwd=Path.cwd(),
    ) as server:
        print(HEADER)
        results = run(server, cases)
    for route in missing:
        print(f"no case for {route}: benchmarks/stall_cases.py needs one")
    failed = [result for result in results if result.verdict != "holds"]
    print(f"{len(results) - len(failed)} of {len(results)} cases hold")
    if given.json is not None:
        told = [asdict(result) | {"verdict": result.verdict} for result in results]
        given.json.write_text(json.dumps(told, indent=2))
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
