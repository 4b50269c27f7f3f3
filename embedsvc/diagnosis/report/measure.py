"""Measures one model on a server of our own, step by step; what is known is in the report at once.

Each step may be the last: of a model that fails, or a report that is interrupted, the rest stays.
"""

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from embedsvc.bench.texts import SHAPES, Shape, make_requests, make_text
from embedsvc.bench.window import measure as measure_window
from embedsvc.diagnosis.report import Load, Longest, Model, Pause
from embedsvc.diagnosis.report.processes import OwnServer
from embedsvc.errors import ServerError

LOAD_SECONDS = 600.0
"""How long a model may take to load."""
ANSWER_SECONDS = 120.0
"""How long any one answer may take."""
WAIT_SECONDS = 0.01
"""How often a model that is loading or unloading is asked after."""
TRIES = {0.2: 5, 1.0: 3, 5.0: 1, 60.0: 1}
"""By pauses in seconds, how often one text is sent after each."""
SHORT = 1.0
"""The longest pause of a quick report."""
FIRST_LONG = 512
"""Tokens of the first long text. Each further one is twice as long."""


class Options(NamedTuple):
    """How long things may take."""

    quick: bool
    seconds: float
    """Of each shape's window."""
    longest_seconds: float
    """No text is tried that is likely to take longer."""


class Clock(NamedTuple):
    """Tests pause without waiting."""

    now: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep


def measure(
    server: OwnServer, model: Model, options: Options, *, on_device: bool, clock: Clock
) -> None:
    """Fill the model's part of a report. Raises `ServerError`."""
    texts = Texts(server, clock)
    model.memory["before"] = server.memory(on_device=on_device)
    instance = _load(server, model, clock)
    model.first_vector_milliseconds = texts.one()[0] * 1e3
    model.memory["loaded"] = server.memory(on_device=on_device)
    for pause, tries in pauses(options).items():
        model.pauses.append(_after_pause(texts, pause, tries))
    for shape in SHAPES.values():
        model.loads.append(_under_load(server, shape, options.seconds))
    _try_longer_and_longer(texts, model, options)
    model.memory["used"] = server.memory(on_device=on_device)
    _unload(server, instance, clock)
    model.memory["unloaded"] = server.memory(on_device=on_device)


def pauses(options: Options) -> dict[float, int]:
    """The pauses, in seconds, and how often one text is sent after each."""
    return {pause: n for pause, n in TRIES.items() if pause <= SHORT or not options.quick}


class Texts:
    """Texts that the server has never seen, sent one at a time."""

    def __init__(self, server: OwnServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._random = random.Random()
        self.most_tokens = 0
        """The most tokens that a text had, as the server counts them."""

    def one(self, shape: Shape = SHAPES["single"], after: float = 0.0) -> tuple[float, float]:
        """Seconds until a text's vector was there, and those of its forward pass.

        It is sent after a pause of so many seconds, in which the server hears nothing. What is
        longer than the model takes is cut. Raises `ServerError`.
        """
        text, _ = make_text(self._random, shape)
        body = {"model": self._server.target.model, "input": text, "truncate": "end"}
        before = self._server.seconds_spent()
        self._clock.pause(after)
        began = self._clock.now()
        answer = self._server.ask("POST", "/v1/embeddings", body, ANSWER_SECONDS)
        seconds = self._clock.now() - began
        self.most_tokens = max(self.most_tokens, answer["usage"]["prompt_tokens"])
        return seconds, self._server.seconds_spent() - before


def _load(server: OwnServer, model: Model, clock: Clock) -> str:
    """Have the model loaded. Returns the id of its instance."""
    began = clock.now()
    instance = server.ask("POST", "/v1/instances", {"model": server.target.model, "keep_alive": -1})
    while instance["state"] in ("downloading", "loading"):
        if clock.now() - began > LOAD_SECONDS:
            raise ServerError(f"it took more than {LOAD_SECONDS:g} s to load")
        clock.pause(WAIT_SECONDS)
        instance = server.ask("GET", f"/v1/instances/{instance['id']}")
    if instance["state"] != "ready":
        raise ServerError(instance["error"] or f"it is {instance['state']}")
    model.load_seconds = clock.now() - began
    model.weights_bytes = instance["memory_bytes"]
    about: dict[str, Any] = server.ask("GET", "/v1/models")["data"][0]
    model.architecture, model.dimensions = about["architecture"], about["dimensions"]
    model.max_tokens = about["max_tokens"]
    return instance["id"]


def _unload(server: OwnServer, instance: str, clock: Clock) -> None:
    server.ask("DELETE", f"/v1/instances/{instance}")
    while server.ask("GET", "/v1/instances")["data"]:
        clock.pause(WAIT_SECONDS)


def _after_pause(texts: Texts, pause: float, tries: int) -> Pause:
    found = [texts.one(after=pause) for _ in range(tries)]
    seconds, computing = (median(each) for each in zip(*found, strict=True))
    return Pause(pause, seconds * 1e3, computing * 1e3)


def _under_load(server: OwnServer, shape: Shape, seconds: float) -> Load:
    target = server.target
    fields = {"model": target.model, "encoding_format": "base64", "truncate": "end"}
    figures = measure_window(
        target.host,
        target.port,
        shape,
        make_requests(shape, f"{random.random()}", target.head(), fields),
        seconds=seconds,
        warm_up=seconds / 4,
        patience=ANSWER_SECONDS,
    )
    return Load(
        shape.name,
        figures["texts_per_second"],
        figures["tokens_per_second"] * (figures["usage_share"] or 1),
        figures["p50_ms"],
        figures["p99_ms"],
        sum(figures["errors"].values()) + sum(figures["wrong"].values()),
    )


def _try_longer_and_longer(texts: Texts, model: Model, options: Options) -> None:
    """Send texts up to the longest that the model takes, as far as there is time for them."""
    most = model.max_tokens or 0
    length = min(FIRST_LONG, most)
    while True:
        # Words are one token in most vocabularies, and more in the others, where the text is cut.
        seconds, _ = texts.one(Shape("long", tokens=max(length, 4)))
        model.longest = Longest(texts.most_tokens, most, seconds)
        # Twice the tokens take up to four times as long, since each looks at all others.
        if length >= most or 4 * seconds > options.longest_seconds:
            return
        length = min(2 * length, most)
