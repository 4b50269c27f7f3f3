"""The processes that a report runs for one model: a server, and `verify`.

They are ended in any case, do not hear the terminal's Ctrl-C, have none of our settings, and reach
no network.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import orjson

from embedsvc.bench.target import Target
from embedsvc.catalog.cards import NOT_LOADED, Card
from embedsvc.diagnosis.report import Memory, Parity
from embedsvc.errors import ServerError
from embedsvc.exits import EXIT_BAD
from embedsvc.inference.ops.memory import memory_of
from embedsvc.settings import BackendChoice, variable

START_SECONDS, STOP_SECONDS = 60.0, 20.0
WAIT_SECONDS = 0.02
ADDRESS = re.compile(r" at http://127\.0\.0\.1:(\d+)/v1")
NO_KEY = "none"


class OwnServer:
    """The server: how it is asked, and what it says of itself."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, model: str) -> None:
        self.target = Target("127.0.0.1", port, "/v1", NO_KEY, model)
        self._process = process

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, patience: float = 60.0
    ) -> Any:
        """What it answers, as JSON. Raises `ServerError` with its own words."""
        status, answer = self.target.ask(method, path, body, patience)
        try:
            told = orjson.loads(answer)
        except ValueError:
            raise ServerError(f"{method} {path} was answered with {status}, not JSON") from None
        if status != 200:
            raise ServerError(told["error"]["message"])
        return told

    def seconds_spent(self) -> float:
        """Seconds of all forward passes so far."""
        name = f'embedsvc_forward_seconds_sum{{model="{self.target.model}"}}'
        return self._metrics().get(name, 0.0)

    def memory(self, *, on_device: bool) -> Memory:
        """The memory that it has in use now."""
        device = None
        if on_device:
            device = int(self._metrics()['embedsvc_device_memory_bytes{kind="active"}'])
        return Memory(memory_of(self._process.pid), device)

    def _metrics(self) -> dict[str, float]:
        _, text = self.target.ask("GET", "/metrics")
        lines = [line.rpartition(" ") for line in text.decode().splitlines() if line[:1] != "#"]
        return {name: float(value) for name, _, value in lines}


@contextmanager
def running(card: Card, folder: Path, backend: BackendChoice) -> Generator[OwnServer]:
    """A server that has loaded nothing yet, and does not remember vectors.

    Its one model's files are in `folder`. Raises `ServerError` with the last thing it said if it
    does not start.
    """
    options = ["--host", "127.0.0.1", "--port", "0", "--cache-bytes", "0", "--log-level", "error"]
    with _embedsvc("serve", options, card, folder, backend) as (process, said):
        yield OwnServer(process, _port(process, said), card.id)


def verified(card: Card, folder: Path, backend: BackendChoice) -> Generator[Parity]:
    """The checks of `embedsvc verify`, each as soon as it is done.

    Raises `ServerError` with the last thing it said if it ends in another way.
    """
    with _embedsvc("verify", [card.id, "--json"], card, folder, backend) as (process, said):
        seen, over = 0, False
        while not over:
            time.sleep(WAIT_SECONDS)
            over = process.poll() is not None  # before its words are read: they may be its last
            whole, _, _ = said.read_bytes().rpartition(b"\n")
            checks = [line for line in whole.splitlines() if line.startswith(b"{")]
            for line in checks[seen:]:
                yield msgspec.json.decode(line, type=Parity)
            seen = len(checks)
        if process.returncode not in (0, EXIT_BAD):
            raise ServerError(_last(said))


@contextmanager
def _embedsvc(
    command: str, options: list[str], card: Card, folder: Path, backend: BackendChoice
) -> "Generator[tuple[subprocess.Popen[bytes], Path]]":
    """A command that runs, and the file with what it says."""
    with TemporaryDirectory() as place:
        cards, said = Path(place, "models.toml"), Path(place, "said")
        cards.write_text("\n".join(_card(card, folder)), encoding="utf-8")
        program = [sys.executable, "-m", "embedsvc", command, *options]
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*program, "--backend", backend, "--models", str(cards)],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process, said
        finally:
            _stop(process)


def _card(card: Card, folder: Path) -> Iterator[str]:
    """The card as TOML: what is read when a model is loaded, whose files are in `folder`."""
    yield f"[models.{_toml(card.id)}]"
    yield f"path = {_toml(str(folder.absolute()))}"
    for name, value in msgspec.structs.asdict(card).items():
        if name not in ("id", "path", "package", *NOT_LOADED) and value not in (None, ()):
            yield f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A value as TOML, which writes texts, numbers and lists as JSON does."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, str]", value)
        pairs = (f"{_toml(key)} = {_toml(each)}" for key, each in table.items())
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False)


def _environment() -> dict[str, str]:
    ours = variable("")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"HF_HUB_OFFLINE": "1"}


def _port(process: "subprocess.Popen[bytes]", said: Path) -> int:
    """The port that it says it listens at, once it does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        over = process.poll() is not None  # before its words are read: they may be its last
        words = said.read_text(encoding="utf-8", errors="replace")
        found = ADDRESS.search(words)
        if found:
            return int(found[1])
        if over:
            raise ServerError(f"the service did not start: {_last(said)}")
        time.sleep(WAIT_SECONDS)
    raise ServerError(f"the service did not start within {START_SECONDS:g} s")


def _last(said: Path) -> str:
    """The last line of what a process said."""
    return (said.read_text(encoding="utf-8", errors="replace").splitlines() or ["it said nothing"])[
        -1
    ]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
