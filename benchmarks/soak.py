"""python -m benchmarks.soak --minutes 30: whether a server bears what clients do to it.

Good clients ask all the time and compare every vector with what the server gave when it was alone.
Meanwhile others vanish, send garbage, trickle bytes, do not read, and flood; halfway the server is
killed (-9) and started again. At the end: what was asked, what came back, what was wrong, and how
memory and descriptors grew. Ends with 1 if anything was lost, wrong, or grew.

The file is long because it has a method for each kind of client, and all share the state of a run.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import sys
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.connection import Connection, Unanswered, embeddings_request
from benchmarks.server import free_port

MODEL = "all-MiniLM-L6-v2"
READ_SECONDS = 5
PATIENCE = 120.0
"""Seconds that one answer may take."""
TOLERANCE = 2e-5
FLOOD = 300
MOST_GROWTH = 1.15
"""How many times the memory of the first minutes a server may have."""
WORDS = ["time", "year", "people", "way", "day", "thing", "woman", "child", "school", "family"]
RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)
"""SO_LINGER with no time, so that closing a socket sends a reset."""


class Soak:
    """A run of the soak test."""

    def __init__(self, minutes: float, seed: int, options: list[str], log: Path) -> None:
        self.seconds = minutes * 60
        self.rng = random.Random(seed)
        self.options = options
        self.log = log
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.up = False
        self.over = False
        self.texts = [
            " ".join(self.rng.choices(WORDS, k=self.rng.choice((1, 3, 8, 20, 60, 120)))) + f" {i}"
            for i in range(400)
        ]
        self.truth = np.zeros((0, 0), np.float32)
        self.answers: Counter[tuple[str, str]] = Counter()
        self.faults: list[str] = []
        self.lives: list[list[tuple[float, int, int]]] = []  # seconds, bytes resident, descriptors

    async def run(self) -> dict[str, object]:
        """Let all clients at the server, kill and restart it halfway, and sum up."""
        began = time.monotonic()
        await self._start()
        self.truth = await self._embed_alone()
        roles: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._good, 6),
            (self._vanishing, 2),
            (self._garbage, 2),
            (self._trickling, 3),
            (self._not_reading, 1),
            (self._flooding, 1),
            (self._sampling, 1),
        ]
        tasks = [
            asyncio.create_task(self._role(role)) for role, count in roles for _ in range(count)
        ]
        await asyncio.sleep(self.seconds / 2)
        await self._kill_and_restart()
        await asyncio.sleep(max(0.0, began + self.seconds - time.monotonic()))
        self.over = True
        _, late = await asyncio.wait(tasks, timeout=60)
        for task in late:
            task.cancel()
            self.faults.append(f"a client was still waiting: {task.get_coro()}")
        await self._end()
        return self._result()

    # --- the server ----------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start a server, and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "embedsvc", "serve", "--port", str(self.port)),
                *("--read-seconds", str(READ_SECONDS), "--max-waiting-tokens", "60000"),
                *self.options,
                stdout=log,
                stderr=log,
            )
        for _ in range(600):
            with suppress(Unanswered):
                if (await Connection(self.port).ask("GET", "/ready"))[0] == 200:
                    break
            await asyncio.sleep(0.1)
        else:
            raise SystemExit("soak: the server does not start")
        self.lives.append([])
        self.up = True

    async def _kill_and_restart(self) -> None:
        """Kill the server, as a crash would, and start another one at the same port."""
        assert self.process is not None
        self.up = False
        self.process.kill()
        await self.process.wait()
        await self._start()

    async def _end(self) -> None:
        """End the server as its manager would. It must exit with 0."""
        assert self.process is not None
        self.process.terminate()
        code = await asyncio.wait_for(self.process.wait(), 60)
        if code:
            self.faults.append(f"it ended with {code}")

    async def _embed_alone(self) -> np.ndarray:
        """The vectors of all texts, from a server that nobody else asks."""
        connection = Connection(self.port)
        rows: list[list[float]] = []
        for text in self.texts:
            body = json.dumps({"model": MODEL, "input": text}).encode()
            status, answer = await connection.ask("POST", "/v1/embeddings", body)
            assert status == 200, answer
            rows.append(json.loads(answer)["data"][0]["embedding"])
        return np.array(rows, np.float32)

    # --- clients -------------------------------------------------------------------------------

    async def _role(self, role: Callable[[], Awaitable[None]]) -> None:
        """Play a client again and again, and note what it lost while the server was up."""
        while not self.over:
            if not self.up:
                await asyncio.sleep(0.05)
                continue
            life = len(self.lives)
            try:
                await role()
            except Unanswered as error:
                died = not self.up or life != len(self.lives)
                self._count(role, f"down ({error})" if died else f"LOST {error}")
                if not died:
                    self.faults.append(f"{role.__name__}: unanswered, {error}")
            except TimeoutError:
                self.faults.append(f"{role.__name__}: nothing came for two minutes")

    def _count(self, role: Callable[[], Awaitable[None]], what: str) -> None:
        """Count what became of a client."""
        self.answers[role.__name__.strip("_"), what] += 1

    async def _good(self) -> None:
        """A client that asks 50 times over one connection, and checks each answer."""
        connection = Connection(self.port)
        try:
            for _ in range(50):
                if self.over:
                    return
                await self._ask_and_compare(connection, self._good, self.rng.choice((1, 1, 4, 32)))
        finally:
            connection.close()

    async def _ask_and_compare(
        self, connection: Connection, role: Callable[[], Awaitable[None]], count: int
    ) -> None:
        chosen = [self.rng.randrange(len(self.texts)) for _ in range(count)]
        fields: dict[str, object] = {"model": MODEL, "input": [self.texts[i] for i in chosen]}
        base64 = self.rng.random() < 0.5
        if base64:
            fields["encoding_format"] = "base64"
        anew = "Cache-Control: no-cache\r\n" if self.rng.random() < 0.5 else ""
        body = json.dumps(fields).encode()
        asked = connection.ask("POST", "/v1/embeddings", body, anew)
        status, answer = await asyncio.wait_for(asked, PATIENCE)
        self._count(role, str(status))
        if status != 200:
            if status != 429:
                self.faults.append(f"{status}: {answer[:300]!r}")
            json.loads(answer)["error"]["message"]
            await asyncio.sleep(self.rng.uniform(0.1, 0.5))
            return
        rows = [row["embedding"] for row in json.loads(answer)["data"]]
        if base64:
            found = np.array([np.frombuffer(b64decode(row), "<f4") for row in rows])
        else:
            found = np.array(rows, np.float32)
        wrong = np.abs(found - self.truth[chosen]).max() if found.shape[0] == count else np.inf
        if not wrong <= TOLERANCE:
            self.faults.append(f"a vector of {count} is off by {wrong}")
            self._count(role, "WRONG")

    async def _vanishing(self) -> None:
        """A client that sends a part of a request or all of it, and leaves."""
        texts = self.rng.choices(self.texts, k=64)
        body = json.dumps({"model": MODEL, "input": texts}).encode()
        whole = embeddings_request(body, "Cache-Control: no-cache\r\n")
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(whole[: self.rng.choice((10, 120, len(whole) // 2, len(whole)))])
            await asyncio.sleep(self.rng.uniform(0, 0.3))
            if self.rng.random() < 0.5:  # with a reset
                link: socket.socket = writer.get_extra_info("socket")
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.close()
        self._count(self._vanishing, "left")
        await asyncio.sleep(0.1)

    async def _garbage(self) -> None:
        """A client that sends what is no valid request. It must be refused, or hung up on."""
        deep = b'{"model":' + b"[" * 100_000
        sent = self.rng.choice(
            (
                self.rng.randbytes(300),
                b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000,
                embeddings_request(b"{"),
                embeddings_request(deep),
                embeddings_request(b'{"model": "all-MiniLM-L6-v2", "input": [1, "a", null]}'),
                embeddings_request(b'{"model": "../../etc/passwd", "input": "a"}'),
                embeddings_request(b'{"model": "all-MiniLM-L6-v2", "input": "\xff"}'),
                embeddings_request(
                    b"\x1f\x8b\x08" + self.rng.randbytes(500), "Content-Encoding: gzip\r\n"
                ),
                embeddings_request(b"", "Transfer-Encoding: chunked\r\n") + b"zz\r\n",
                b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e9\r\n\r\n",
                b"DELETE /%00%0d%0a HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            )
        )
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(sent)
            answer = b""
            with suppress(TimeoutError):
                answer = await asyncio.wait_for(reader.read(4096), READ_SECONDS + 10)
            writer.close()
            status = answer[9:12].decode("latin-1") or "hung up"
            self._count(self._garbage, status)
            if status[0] not in "4h":
                self.faults.append(f"garbage was answered {status}: {sent[:60]!r}")
        await asyncio.sleep(0.05)

    async def _trickling(self) -> None:
        """A client that sends a byte every 0.3 seconds. It must be hung up on."""
        body = json.dumps({"model": MODEL, "input": "a"}).encode()
        whole = embeddings_request(body)
        began = time.monotonic()
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                for byte in whole:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.3)
                    if self.over or not self.up:
                        return
            finally:
                writer.close()
        took = time.monotonic() - began
        self._count(self._trickling, "hung up on")
        if took > 4 * READ_SECONDS:
            self.faults.append(f"a trickling client was kept for {took:.0f} s")

    async def _not_reading(self) -> None:
        """A client that sends requests, and reads no answer."""
        body = json.dumps({"model": MODEL, "input": self.texts[:100]}).encode()
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(link, ("127.0.0.1", self.port))
            while not self.over and self.up:
                await asyncio.wait_for(loop.sock_sendall(link, embeddings_request(body)), 1)
        except (OSError, TimeoutError):
            await asyncio.sleep(2 * READ_SECONDS)
        finally:
            link.close()
        self._count(self._not_reading, "left")

    async def _flooding(self) -> None:
        """Many clients at once, each with a request of its own."""
        await asyncio.sleep(min(15, self.seconds / 8))
        began = time.monotonic()

        async def one() -> None:
            connection = Connection(self.port)
            try:
                await self._ask_and_compare(connection, self._flooding, 32)
            finally:
                connection.close()

        done = await asyncio.gather(*(one() for _ in range(FLOOD)), return_exceptions=True)
        for result in done:
            if isinstance(result, Unanswered):
                raise result
            if isinstance(result, BaseException):
                self.faults.append(f"flooding: {result!r}")
        took = time.monotonic() - began
        self._count(self._flooding, f"over in {'<' if took < 20 else '>='} 20 s")

    # --- looking on ----------------------------------------------------------------------------

    async def _sampling(self) -> None:
        """Note the memory and the descriptors of the server, and that it is ready."""
        await asyncio.sleep(2)
        assert self.process is not None
        folder, life = Path(f"/proc/{self.process.pid}"), self.lives[-1]
        with suppress(OSError):
            pages = int((folder / "statm").read_text().split()[1])
            life.append((time.monotonic(), pages * 4096, len(list((folder / "fd").iterdir()))))
        status, answer = await Connection(self.port).ask(
            "GET", "/ready", headers="Connection: close\r\n"
        )
        self._count(self._sampling, f"ready {status}")
        if status != 200:
            self.faults.append(f"not ready: {answer!r}")

    def _result(self) -> dict[str, object]:
        """The figures of the run. Growth of memory or descriptors is a fault."""
        lives: list[dict[str, object]] = []
        for life in self.lives:
            few = max(3, len(life) // 8)
            first, last = life[few : 2 * few] or life, life[-few:] or life
            figures: dict[str, object] = {}
            # Floods come and go. What leaks is also there between them.
            for name, column, unit, typical in (
                ("MiB", 1, 2**20, statistics.median),
                ("descriptors", 2, 1, min),
            ):
                start = typical(sample[column] for sample in first) / unit
                end = typical(sample[column] for sample in last) / unit
                most = max(sample[column] for sample in life) / unit
                figures[name] = {"first": round(start), "last": round(end), "most": round(most)}
                if end > MOST_GROWTH * start + 15:
                    self.faults.append(f"{name} grew from {start:.0f} to {end:.0f}")
            lives.append(figures)
        answers: dict[str, dict[str, int]] = {}
        for (role, what), count in sorted(self.answers.items()):
            answers.setdefault(role, {})[what] = count
        return {
            "seconds": self.seconds,
            "answers": answers,
            "lives": lives,
            "faults": len(self.faults),
            "first faults": self.faults[:20],
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("soak.log"), help="the server's")
    parser.add_argument("options", nargs="*", help="more options of `embedsvc serve`, after --")
    given = parser.parse_args()
    result = asyncio.run(Soak(given.minutes, given.seed, given.options, given.log).run())
    print(json.dumps(result, indent=2))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
