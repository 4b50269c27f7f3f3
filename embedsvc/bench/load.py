"""The load generator: one process, one thread, raw sockets, so that the servers have the cores.

In a closed loop, each client sends its next request when the last one is answered. In an open loop,
requests arrive at random times, whether or not others are answered. Answers are kept as bytes and
checked afterwards.
"""

import asyncio
import gc
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import httptools

from embedsvc.bench.texts import Request, Shape

MOST_CLIENTS = 512
"""The most connections of an open loop. Requests beyond them wait, and their time counts."""
MOST_ERRORS = 200
"""After so many errors no lost connection is opened again."""
PAUSE_SECONDS = 0.1
"""How long a client waits after an error, so that a broken server is not flooded."""


@dataclass
class Measurement:
    """What came back within the window.

    `sent`, `bodies` and `latencies` have an entry for each answer with status 200.
    """

    seconds: float = 0.0
    sent: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Seconds."""
    errors: Counter[str] = field(default_factory=Counter)
    cpu_share: float = 0.0
    """The share of one core that this process itself used."""


class Load:
    """One shape's load on one server. `measure` may be called only once."""

    def __init__(self, host: str, port: int, shape: Shape, requests: Iterator[Request]) -> None:
        self.host, self.port, self.shape, self.requests = host, port, shape, requests
        self.measuring = False
        self.over = False
        self.measurement = Measurement()
        self.answers = 0  # in this phase, errors included
        self.enough = asyncio.Event()
        self.drained = asyncio.Event()
        self.clients: set[Client] = set()
        self.idle: list[Client] = []
        self.late: deque[tuple[float, Request]] = deque()
        self.rng = random.Random(shape.name)

    async def measure(self, seconds: float, warm_up: float, patience: float) -> Measurement:
        """Warm up, measure, then wait for the requests in flight.

        A phase is prolonged until every client has had an answer, by `patience` seconds at most.
        """
        ready = round((seconds + warm_up) * 30_000 / self.shape.texts / 16)
        self.requests = itertools.chain(list(itertools.islice(self.requests, ready)), self.requests)
        gc.collect()
        gc.disable()
        try:
            await self._start()
            await self._phase(warm_up, patience)
            self.measuring = True
            began, cpu = time.perf_counter(), time.process_time()
            await self._phase(seconds, patience)
            self.measuring = False
            self.measurement.seconds = time.perf_counter() - began
            self.measurement.cpu_share = (time.process_time() - cpu) / self.measurement.seconds
            await self._drain(patience)
        finally:
            self.over = True
            gc.enable()
            for client in self.clients:
                client.request = None
                client.transport.abort()
        return self.measurement

    async def _start(self) -> None:
        if self.shape.rate is not None:
            self._arrive(asyncio.get_running_loop().time())
            return
        for _ in range(self.shape.clients):
            await self.connect()

    async def _phase(self, seconds: float, patience: float) -> None:
        self.answers = 0
        self.enough.clear()
        await asyncio.sleep(seconds)
        try:
            await asyncio.wait_for(self.enough.wait(), patience)
        except TimeoutError:
            if self.answers == 0:
                self.measurement.errors[f"no answer in {seconds + patience:.0f} s"] += 1

    async def _drain(self, patience: float) -> None:
        self.over = True
        try:
            if any(client.request for client in self.clients):
                await asyncio.wait_for(self.drained.wait(), patience)
        except TimeoutError:
            pass
        left = sum(client.request is not None for client in self.clients) + len(self.late)
        if left:
            self.measurement.errors["unanswered"] += left

    async def connect(self) -> None:
        """Open one more connection, which sends a request as soon as it is open."""
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: Client(self), self.host, self.port)
        except OSError as error:
            self.failed(f"connect: {error.strerror}")
            self.reconnect(PAUSE_SECONDS)

    def reconnect(self, pause: float) -> None:
        """Open a connection in place of a lost one, after a pause in seconds."""
        if not self.over and self.measurement.errors.total() < MOST_ERRORS:
            loop = asyncio.get_running_loop()
            loop.call_later(pause, lambda: loop.create_task(self.connect()))

    def _arrive(self, due: float) -> None:
        """A request of the open loop arrives. Its time counts from `due`, when it should have."""
        if self.over:
            return
        loop = asyncio.get_running_loop()
        request = next(self.requests)
        late = time.perf_counter() - (loop.time() - due)
        if self.idle:
            self.idle.pop().send(request, late)
        else:
            self.late.append((late, request))
            if len(self.clients) < MOST_CLIENTS:
                loop.create_task(self.connect())  # noqa: RUF006 - self.clients has what it opens
        soon = due + self.rng.expovariate(self.shape.rate or 1.0)
        loop.call_at(soon, self._arrive, soon)

    def give_work(self, client: "Client") -> None:
        """Let an idle client send the next request, if there is one to send."""
        if self.late and not self.over:
            due, request = self.late.popleft()
            client.send(request, due)
        elif self.over:
            client.transport.close()
        elif self.shape.rate is not None:
            self.idle.append(client)
        else:
            client.send(next(self.requests), time.perf_counter())

    def answered(self, request: Request, seconds: float, status: int, body: bytes) -> None:
        """Count an answer, and keep it if it came within the window."""
        if status != 200:
            self.failed(f"{status}: {body[:100].decode(errors='replace')}")
            return
        if self.measuring:
            self.measurement.sent.append(request)
            self.measurement.bodies.append(body)
            self.measurement.latencies.append(seconds)
        self._count()

    def failed(self, why: str) -> None:
        """Count an error."""
        self.measurement.errors[why] += 1
        self._count()

    def _count(self) -> None:
        self.answers += 1
        if self.answers >= self.shape.clients:
            self.enough.set()
        if self.over and not any(client.request for client in self.clients):
            self.drained.set()


class Client(asyncio.Protocol):
    """A keep-alive connection, with at most one request in flight."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.request: Request | None = None
        self.began = 0.0
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)
        self.load.clients.add(self)
        self.load.give_work(self)

    def send(self, request: Request, began: float) -> None:
        """Send a request. Its time counts from `began`."""
        self.request, self.began = request, began
        self.transport.write(request.data)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP: {error}")

    def on_body(self, part: bytes) -> None:
        """Called by httptools with a piece of the body."""
        self.body.append(part)

    def on_message_complete(self) -> None:
        """Called by httptools when the answer is complete."""
        request, self.request = self.request, None
        body, self.body = b"".join(self.body), []
        if request is None:
            self._lose("an answer nobody asked for")
            return
        status = self.parser.get_status_code()
        self.load.answered(request, time.perf_counter() - self.began, status, body)
        if not self.parser.should_keep_alive():
            self.transport.close()
        elif status == 200 or self.load.over:
            self.load.give_work(self)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(PAUSE_SECONDS, self.load.give_work, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.clients.discard(self)
        if self in self.load.idle:
            self.load.idle.remove(self)
        lost, self.request = self.request, None
        if lost is not None:
            self.load.failed(f"connection lost: {exc or 'closed by the server'}")
        self.load.reconnect(PAUSE_SECONDS if lost is not None else 0.0)

    def _lose(self, why: str) -> None:
        """Give up the connection because of an error."""
        self.request = None
        self.load.failed(why)
        self.transport.abort()
