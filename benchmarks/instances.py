"""python -m benchmarks.instances: whether models come and go for months.

First models that are together larger than the memory they may take, asked for at random by many
clients; then one that is loaded and unloaded again and again. Prints answers, latency and resident
memory, and ends with 1 if an answer was an error or wrong, or memory grew by more than 5 %.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.checkpoints import write_random
from benchmarks.server import Server, free_port, running
from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.commands.client import Instance, Instances, RunningServer

MODELS, ROOM = 5, 2.5
"""How many models there are, and for how many of them there is memory."""
SIZE = (4, 256, 4)
"""Layers, width and heads of each model, which has 44 MB."""
CLIENTS = 16
MOST_GROWTH = 1.05
TOLERANCE = 1e-4
TEXTS = [f"{'a text that is longer ' * (i % 9)}and has number {i}" for i in range(40)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.instances", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the first part")
    parser.add_argument("--rounds", type=int, default=200, help="of the second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = _write_cards(folder)
        port = free_port()
        command = [".venv/bin/embedsvc", "serve", "--port", str(port), "--cache-bytes", "0"]
        command += ["--models", str(folder / "models.toml"), "--max-memory", str(int(ROOM * size))]
        with running(
            command,
            {},
            port=port,
            path="/v1/embeddings",
            model="m0",
            log=folder / "log",
            cwd=Path.cwd(),
        ) as server:
            print(f"each model takes {size / 1e6:.0f} MB")
            soak = asyncio.run(_soak(server, 60 * given.minutes)) if given.minutes else {}
            print(json.dumps({"soak": soak}, indent=2), flush=True)
            rounds = _rounds(server, given.rounds) if given.rounds else {}
            print(json.dumps({"rounds": rounds}, indent=2))
    bad = soak.get("wrong", 0) or set(soak.get("answers", {"200": 0})) != {"200"}
    grown = max(part.get("growth", 1.0) for part in (soak, rounds)) > MOST_GROWTH
    return 1 if bad or grown else 0


def _write_cards(folder: Path) -> int:
    """Write a cards file of models with files of their own. Returns the bytes of each in memory."""
    like = find_checkpoint(next(iter(read_cards(Path("models.toml")).by_id.values())))
    cards: list[str] = []
    for number in range(MODELS):
        write_random(folder / f"m{number}", like, *SIZE)
        cards.append(f"[models.m{number}]\npath = 'm{number}'\nnormalize = true\n")
        if number % 2:  # all have the same weights: these differ in their pooling
            cards[-1] += "pooling = 'cls'\n"
    (folder / "models.toml").write_text("".join(cards))
    found = Card(id="m0", path=folder / "m0")
    assert found.path is not None
    return 2 * (found.path / "model.safetensors").stat().st_size  # it is stored in float16


def _memory(server: Server) -> float:
    found = server.memory()
    return found[0] if found else 0.0


async def _soak(server: Server, seconds: float) -> dict[str, Any]:
    truth = {f"m{number}": _vectors(server, f"m{number}") for number in range(MODELS)}
    answers: Counter[str] = Counter()
    latencies: list[float] = []
    samples: list[float] = []
    faults: list[str] = []
    wrong = 0
    end = time.monotonic() + seconds

    async def ask(number: int) -> None:
        nonlocal wrong
        chance = random.Random(number)
        async with httpx2.AsyncClient(base_url=_url(server), timeout=120) as client:
            while time.monotonic() < end:
                model, index = chance.choice(list(truth)), chance.randrange(len(TEXTS))
                began = time.perf_counter()
                body = {"model": model, "input": TEXTS[index]}
                answer = await client.post("/v1/embeddings", json=body)
                latencies.append(time.perf_counter() - began)
                answers[str(answer.status_code)] += 1
                if answer.status_code != 200:
                    faults.append(answer.text[:200])
                    continue
                found = np.array(answer.json()["data"][0]["embedding"])
                wrong += not np.abs(found - truth[model][index]).max() <= TOLERANCE

    async def sample() -> None:
        while time.monotonic() < end:
            samples.append(_memory(server))
            await asyncio.sleep(0.5)

    await asyncio.gather(sample(), *map(ask, range(CLIENTS)))
    few = max(1, len(samples) // 6)
    first, last = (statistics.fmean(part) for part in (samples[few : 2 * few], samples[-few:]))
    latencies.sort()
    return {
        "seconds": seconds,
        "answers": dict(answers),
        "wrong": wrong,
        "first faults": faults[:5],
        "p50 s": round(latencies[len(latencies) // 2], 3),
        "p99 s": round(latencies[len(latencies) * 99 // 100], 3),
        "MiB first": round(first, 1),
        "MiB last": round(last, 1),
        "MiB most": round(max(samples), 1),
        "growth": round(last / first, 3),
    }


def _vectors(server: Server, model: str) -> np.ndarray:
    """The vectors of all texts, asked for one at a time."""
    rows: list[list[float]] = []
    for text in TEXTS:
        status, body = server.post({"model": model, "input": text})
        assert status == 200, body
        rows.append(json.loads(body)["data"][0]["embedding"])
    return np.array(rows)


def _rounds(server: Server, rounds: int) -> dict[str, Any]:
    remote = RunningServer(_url(server), None)
    for instance in _instances(remote):
        _unload(remote, instance.id)
    samples: list[float] = []
    seconds: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        made = remote.ask("POST", "/v1/instances", {"model": "m0"}, kind=Instance)
        *_, ready = remote.events(f"/v1/instances/{made.id}/events", Instance)
        assert ready.state == "ready", ready
        status, body = server.post({"model": "m0", "input": "hello"})
        assert status == 200, body
        _unload(remote, made.id)
        seconds.append(time.perf_counter() - began)
        samples.append(_memory(server))
    few = max(1, rounds // 20)
    first, last = (statistics.median(part) for part in (samples[:few], samples[-few:]))
    return {
        "rounds": rounds,
        "seconds a round": round(statistics.median(seconds), 3),
        "MiB first": round(first, 1),
        "MiB last": round(last, 1),
        "MiB most": round(max(samples), 1),
        "growth": round(last / first, 3),
    }


def _instances(remote: RunningServer) -> list[Instance]:
    return remote.ask("GET", "/v1/instances", kind=Instances).data


def _unload(remote: RunningServer, identity: str) -> None:
    """Unload an instance, and wait until nothing is left of it."""
    remote.ask("DELETE", f"/v1/instances/{identity}", kind=Instance)
    while any(each.id == identity for each in _instances(remote)):
        time.sleep(0.005)


def _url(server: Server) -> str:
    return f"http://{server.host}:{server.port}"


if __name__ == "__main__":
    raise SystemExit(main())
