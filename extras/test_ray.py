"""`embedsvc.ray_data` and `embedsvc.ray_serve` on a cluster of worker processes on this machine.

`make test-extras` installs Ray in an environment of its own, and runs this.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from embedsvc.bulk.local import open_local
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.catalog.cards import Card
from embedsvc.cli import main
from embedsvc.errors import BulkError, CardsError
from embedsvc.ray_data import Pool, Stage, connect, embed_parquet
from embedsvc.ray_serve import Scale, application, build
from embedsvc.settings import Settings
from tests.support.checkpoints import write_bert

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),  # they are Ray's own
]

TEXTS = [f"hello {'a b c d '[: 2 * (i % 5)]}world {i % 97}" for i in range(6000)]
BAD = {11: None, 3000: "", 5999: "hello " * 99}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = connect(4)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cards file with a tiny model, and `corpus/`, three files of Parquet."""
    folder = tmp_path_factory.mktemp("ray")
    write_bert(folder / "tiny")
    (folder / "models.toml").write_text("[models.tiny]\npath = 'tiny'\npreload = true\n")
    (folder / "corpus").mkdir()
    texts = [BAD.get(i, text) for i, text in enumerate(TEXTS)]
    for part in range(3):
        numbers = range(2000 * part, 2000 * (part + 1))
        table = pa.table({"n": list(numbers), "text": [texts[i] for i in numbers]})
        pq.write_table(table, folder / "corpus" / f"{part}.parquet", row_group_size=250)
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return Settings(models=folder / "models.toml", backend="numpy")


@pytest.fixture(scope="module")
def expected(folder: Path, settings: Settings) -> NDArray[np.float32]:
    """The vectors of one process, by the number of their text."""

    async def embed() -> NDArray[np.float32]:
        card = Card(id="tiny", path=folder / "tiny")
        async with open_local(card, settings) as embedder:
            return (await embedder.embed(TEXTS, EmbedOptions())).vectors

    return asyncio.run(embed())


def processes(title: str) -> list[int]:
    """The processes of that title that this one started, directly or not."""
    found: dict[int, tuple[int, str]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            found[int(status.parent.name)] = parent, (status.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue

    def below(number: int) -> bool:
        while number in found:
            if number == os.getpid():
                return True
            number = found[number][0]
        return False

    return [number for number, (_, said) in found.items() if title in said and below(number)]


def until(holds: Callable[[], Any]) -> Any:
    """Call a function until it returns something true, and return that."""
    deadline = time.monotonic() + 60
    while not (value := holds()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    return value


def check(output: Path, expected: NDArray[np.float32]) -> None:
    """Check that every row is there once, with its vector or the reason why it has none."""
    table = pq.read_table(output).sort_by("n")
    assert table["n"].to_pylist() == list(range(len(TEXTS)))
    errors = table["error"].to_pylist()
    assert [number for number, error in enumerate(errors) if error] == list(BAD)
    assert errors[11] == "`text` is null"
    vectors = table["embedding"].to_pylist()
    assert [vectors[number] for number in BAD] == [None] * 3
    good = [number for number in range(len(TEXTS)) if number not in BAD]
    found = np.array([vectors[number] for number in good], np.float32)
    np.testing.assert_allclose(found, expected[good], atol=1e-6)


def test_the_cluster_reports_to_nobody_and_listens_on_loopback_alone(ray: Any) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    own = {str(number) for number in [*processes("raylet"), *processes("gcs_server")]}
    assert own
    opened = [link for number in own for link in Path(f"/proc/{number}/fd").iterdir()]
    sockets = {str(link.readlink()).removeprefix("socket:[").rstrip("]") for link in opened}
    listening = [
        fields[1].partition(":")[0]
        for family in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[9] in sockets
    ]
    assert listening
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= loopback


def kill_one(title: str, when: Callable[[], Any], killed: list[int]) -> None:
    """Kill a process of that title, once a condition holds."""

    def kill() -> None:
        until(when)
        number = until(lambda: processes(title))[0]
        os.kill(number, signal.SIGKILL)
        killed.append(number)

    threading.Thread(target=kill, daemon=True).start()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsvc.ray_data.ROWS", 50)
    monkeypatch.setattr("embedsvc.ray_data.BLOCK_BYTES", 10_000)


@pytest.mark.usefixtures("ray", "small_blocks")
def test_a_corpus_by_two_workers_one_of_which_is_killed(
    folder: Path, settings: Settings, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    killed: list[int] = []
    kill_one("ray::MapWorker", lambda: list(output.glob("*.parquet")), killed)
    pool = Pool(least=2, most=2)
    embed_parquet(str(folder / "corpus"), output, "n", Stage(settings=settings), pool)
    assert killed
    check(output, expected)
    assert not output.with_name("out.partial").exists()
    with pytest.raises(BulkError, match="is there already"):
        embed_parquet(str(folder / "corpus"), output, "n", Stage(settings=settings), pool)


CORPUS = """
import sys
from pathlib import Path
from embedsvc import ray_data
from embedsvc.settings import Settings
ray_data.connect(2)
ray_data.ROWS, ray_data.BLOCK_BYTES = 50, 10_000
settings = Settings(models=Path(sys.argv[1]) / "models.toml", backend="numpy")
stage = ray_data.Stage(settings=settings)
pool = ray_data.Pool()
ray_data.embed_parquet(sys.argv[1] + "/corpus", Path(sys.argv[2]), "n", stage, pool)
"""


@pytest.mark.usefixtures("ray")
def test_a_run_that_was_killed_goes_on(
    folder: Path, settings: Settings, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", CORPUS, str(folder), str(output)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with driver:
        until(lambda: len(list(output.glob("*.parquet"))) >= 3 or driver.poll() is not None)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    done = {file.name for file in output.glob("*.parquet")}
    source, stage = str(folder / "corpus"), Stage(settings=settings)
    with pytest.raises(BulkError, match="begun otherwise"):
        embed_parquet(source, output, "n", Stage(settings=settings, dtype="int8"), Pool())
    embed_parquet(source, output, "n", stage, Pool())
    check(output, expected)
    kept = done & {file.name for file in output.glob("*.parquet")}
    assert len(kept) >= len(done) - 2  # less those that were being written


@pytest.fixture(scope="module")
def served(ray: Any, settings: Settings) -> Iterator[str]:
    """The base URL of two replicas."""
    from ray import serve

    scale = Scale(min_replicas=2, max_replicas=3, num_cpus=1)
    serve.start(http_options={"host": "127.0.0.1", "port": 8479})
    serve.run(application(settings, scale))
    yield "http://127.0.0.1:8479/v1"
    serve.shutdown()


def test_replicas_answer_as_the_server_does(served: str, expected: NDArray[np.float32]) -> None:
    body = {"model": "tiny", "input": TEXTS[:50]}
    for _ in range(4):
        answer = httpx2.post(f"{served}/embeddings", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        found = [row["embedding"] for row in answer.json()["data"]]
        np.testing.assert_allclose(np.array(found, np.float32), expected[:50], atol=1e-6)
    refused = httpx2.post(f"{served}/embeddings", json={"model": "none", "input": "a"})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    assert httpx2.get(served.replace("/v1", "/ready")).json() == {"status": "ready"}


def test_nothing_is_lost_when_a_replica_is_killed(
    served: str, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("\n".join(TEXTS))
    output = tmp_path / "out.npy"
    killed: list[int] = []
    partial = tmp_path / "out.npy.partial"
    kill_one("ray::ServeReplica", lambda: partial.exists() and partial.stat().st_size, killed)
    assert main(["embed", str(lines), "--url", served, "--output", str(output)]) == 0
    assert killed
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    until(lambda: len(set(processes("ray::ServeReplica")) - set(killed)) == 2)  # replaced


def test_replicas_that_are_stopped_first_answer_what_they_have(
    served: str, expected: NDArray[np.float32]
) -> None:
    from ray import serve

    def ask(first: int) -> httpx2.Response:
        body = {"model": "tiny", "input": TEXTS[first : first + 1000]}
        return httpx2.post(f"{served}/embeddings", json=body, timeout=60)

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, 100 * number) for number in range(8)]
        next(as_completed(asked))
        assert not all(one.done() for one in asked)
        serve.delete("default")
        answers = [one.result() for one in asked]
    for number, answer in enumerate(answers):
        assert answer.status_code == 200, answer.text
        found = [row["embedding"] for row in answer.json()["data"]]
        beginning = expected[100 * number :][:1000]
        np.testing.assert_allclose(np.array(found, np.float32), beginning, atol=1e-6)


def test_what_serve_run_is_given(folder: Path) -> None:
    deployment = build({"models": str(folder / "models.toml"), "num_gpus": "1", "max_replicas": 8})
    assert deployment is not None
    for wrong in ({"max_replica": 1}, {"max_replicas": "x"}, {"port": "-1"}):
        with pytest.raises(CardsError, match=next(iter(wrong)).split("_")[0]):
            build(wrong)
