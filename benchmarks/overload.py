"""python -m benchmarks.overload: what ten times the load does to a server.

First what it can do, with a few clients that ask again when they are answered. Then requests arrive
at ten times that rate, whether others are answered or not: does it do as much as before, within the
same memory, and how soon are the rest sent away? At last nobody asks any more: when is it itself?
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.server import free_port
from benchmarks.soak import MODEL, WORDS, Connection, Unanswered

TEXTS = 32
CLIENTS = 8
TIMES = 10


class Overload:
    """One run."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.rng = random.Random(seed)
        self.port = free_port()
        self.pid = 0
        self.idle: list[Connection] = []

    async def run(self, options: Sequence[str], log: Path) -> dict[str, object]:
        with log.open("wb") as output:
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "embedsvc", "serve", "--port", str(self.port), *options),
                stdout=output,
                stderr=output,
            )
        self.pid = server.pid
        try:
            await self._until_ready()
            lone = await self._lone()
            rate = await self._closed()
            before = self._memory()
            found = await self._open(TIMES * rate)
            after = self._memory()
            recovered = await self._recovery(lone)
        finally:
            server.terminate()
            await server.wait()
        return {
            "requests in a second": round(rate, 2),
            "lone request, ms": round(1000 * lone, 1),
            f"at {TIMES} times that": found,
            "MiB before and after": [before, after],
            "seconds until a lone request takes less than twice as long": round(recovered, 2),
        }

    async def _until_ready(self) -> None:
        for _ in range(600):
            with suppress(Unanswered):
                if (await Connection(self.port).ask("GET", "/ready"))[0] == 200:
                    return
            await asyncio.sleep(0.1)
        raise SystemExit("overload: the server does not start")

    async def _ask(self, connection: Connection, texts: int = TEXTS) -> tuple[int, float]:
        """Status and seconds of a request for texts that are new to the cache."""
        inputs = [
            " ".join(self.rng.choices(WORDS, k=12)) + str(self.rng.random()) for _ in range(texts)
        ]
        fields = {"model": MODEL, "input": inputs, "encoding_format": "base64"}
        body = json.dumps(fields).encode()
        began = time.perf_counter()
        status, _ = await connection.ask("POST", "/v1/embeddings", body)
        return status, time.perf_counter() - began

    async def _lone(self) -> float:
        connection = Connection(self.port)
        return statistics.median([(await self._ask(connection, 1))[1] for _ in range(30)])

    async def _closed(self) -> float:
        """How many requests are answered in a second when none has to be refused."""
        end = time.perf_counter() + self.seconds
        answered = 0

        async def client() -> None:
            nonlocal answered
            connection = Connection(self.port)
            while time.perf_counter() < end:
                status, _ = await self._ask(connection)
                assert status == 200, status
                answered += time.perf_counter() < end

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return answered / self.seconds

    async def _open(self, rate: float) -> dict[str, object]:
        """What becomes of requests that arrive at that rate, at random times."""
        taken: dict[int, list[float]] = {}
        lost = 0

        async def one() -> None:
            nonlocal lost
            connection = self.idle.pop() if self.idle else Connection(self.port)
            try:
                status, seconds = await self._ask(connection)
                taken.setdefault(status, []).append(seconds)
            except Unanswered:
                lost += 1
            self.idle.append(connection)

        tasks: list[asyncio.Task[None]] = []
        began = due = time.perf_counter()
        while due < began + self.seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one()))
            due += self.rng.expovariate(rate)
        in_time = len(taken.get(200, []))
        sent_for = time.perf_counter() - began
        await asyncio.gather(*tasks)
        return {
            "requests in a second": round(len(tasks) / sent_for, 1),
            "answered in a second": round(in_time / sent_for, 2),
            "lost": lost,
            "by status": {status: _quantiles(times) for status, times in sorted(taken.items())},
        }

    async def _recovery(self, lone: float) -> float:
        began = time.perf_counter()
        connection = Connection(self.port)
        while True:
            status, seconds = await self._ask(connection, 1)
            if status == 200 and seconds < 2 * lone + 0.005:
                return time.perf_counter() - began

    def _memory(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096 >> 20


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "median ms": round(1000 * ordered[len(ordered) // 2], 1),
        "99 % ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("overload.log"), help="the server's")
    parser.add_argument("options", nargs="*", help="more options of `embedsvc serve`, after --")
    given = parser.parse_args()
    options = ["--max-waiting-tokens", "16000", *given.options]
    print(
        json.dumps(
            asyncio.run(Overload(given.seconds, given.seed).run(options, given.log)), indent=2
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
