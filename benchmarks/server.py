"""A server's process: how it is started, waited for, measured and ended."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.bench.answers import ANY_VECTORS, Check, WrongAnswer

STOP_SECONDS = 10.0


class NotServing(RuntimeError):
    """A server could not be installed or started. The message says why, in one line."""


class Trial(NamedTuple):
    """A request that a server answers once it is ready."""

    fields: dict[str, Any]
    check: Check


EMBEDS = Trial({"input": "hello"}, ANY_VECTORS)


@dataclass
class Server:
    """A server that is ready."""

    host: str
    port: int
    path: str
    model: str
    pid: int | None = None
    """None: the server ran already."""
    start_seconds: float | None = None
    """Seconds from the start of the process to the first embedding. None: it ran already."""

    def head(self) -> str:
        """The head of an HTTP request, but for its length."""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            "Content-Type: application/json\r\nAuthorization: Bearer none\r\n"
        )

    def post(self, fields: dict[str, Any], timeout: float = 120.0) -> tuple[int, bytes]:
        """Status and body of one request. Raises `OSError`, `http.client.HTTPException`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        try:
            body = json.dumps({"model": self.model} | fields)
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> tuple[float, float] | None:
        """MiB that the process and its children have resident, now and at most so far (Linux)."""
        if self.pid is None or not Path("/proc/self/status").exists():
            return None
        found = [_status(pid) for pid in _tree(self.pid)]
        return sum(now for now, _ in found) / 1024, sum(most for _, most in found) / 1024


@contextmanager
def running(
    command: list[str],
    env: dict[str, str],
    *,
    port: int,
    path: str,
    model: str,
    log: Path,
    cwd: Path,
    trial: Trial = EMBEDS,
) -> Iterator[Server]:
    """Start a server, wait until it answers a trial, and end it and its children afterwards.

    Raises `NotServing` with the last thing it said.
    """
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=untuned() | env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server("127.0.0.1", port, path, model, process.pid)
    try:
        _wait(server, process, log, trial)
        server.start_seconds = time.perf_counter() - began
        yield server
    finally:
        _stop(process)


def untuned() -> dict[str, str]:
    """This process's environment, without variables that tune numeric libraries."""
    tuning = re.compile("(OPENBLAS|OMP|MKL|KMP|NVPL|DNNL|ONEDNN)_")
    return {name: value for name, value in os.environ.items() if not tuning.match(name)}


def busy_seconds(pid: int | None) -> tuple[float, float, float] | None:
    """Processor time so far (Linux): of all processes; of `pid` and its children; stolen from us.

    Stolen is what the host of a virtual machine gave to others.
    """
    if pid is None or not Path("/proc/stat").exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, stolen = (
        int(value) / tick for value in Path("/proc/stat").read_text().split()[1:9]
    )
    own = 0.0
    for one in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            own += (int(fields[11]) + int(fields[12])) / tick
    return user + nice + system + irq + softirq, own, stolen


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_words(output: str) -> str:
    """The line of a log that most likely says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|ERROR:\s*(?!\s|App)", line)
    ]
    return (errors or lines or ["it said nothing"])[-1][:200]


def _wait(
    server: Server,
    process: subprocess.Popen[bytes],
    log: Path,
    trial: Trial,
    most: float = 180,
) -> None:
    deadline = time.monotonic() + most
    said = ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotServing(last_words(log.read_text(errors="replace")))
        try:
            status, body = server.post(trial.fields)
            said = f"{status}: {body[:150].decode(errors='replace')}"
            if status == 200:
                trial.check(body, 1)
                return
            if status in {400, 401, 403, 404, 405, 422}:
                raise NotServing(said)
        except (OSError, http.client.HTTPException):
            pass
        except WrongAnswer as error:
            raise NotServing(f"its answer is wrong: {error}") from None
        time.sleep(0.02)
    raise NotServing(f"no answer within {most:.0f} s. {said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a server: first with SIGTERM, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # the thread has ended meanwhile
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def _status(pid: int) -> tuple[int, int]:
    """KiB that a process has resident, now and at most."""
    values = {"VmRSS": 0, "VmHWM": 0}
    with suppress(OSError):  # the child has ended meanwhile
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in values:
                values[name] = int(value.split()[0])
    return values["VmRSS"], values["VmHWM"]
