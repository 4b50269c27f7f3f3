"""`embedsvc embed` killed for good (kill -9) again and again, against a run that was let be."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.partial import Partial, Record
from tests.fake_server import FakeServer, vector_of

ROWS = 3000
BAD = (7, 1500, 2990)
OPTIONS = ("--column", "text", "--id-column", "id", "--keep", "n")


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(f"[models.tiny]\npath = '{tiny_folder}'\n")
    lines = [
        json.dumps({"id": f"k{i}", "text": f"hello {'a b '[: i % 5]}{i}", "n": i})
        for i in range(ROWS)
    ]
    for line in BAD:
        lines[line - 1] = "oops"
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    return tmp_path


def start(output: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "embedsvc", "embed", "in.jsonl", *OPTIONS, *options]
    return subprocess.Popen(
        [*command, "--output", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> str:
    """Let it end, with rows set aside; what it said."""
    said, errors = process.communicate(timeout=50)
    assert process.returncode == 1, errors
    return said.decode()


def kill_at(process: subprocess.Popen[bytes], partial: Path, size: int) -> bool:
    """Kill it when the partial output has so many bytes; false if it ended before."""
    while process.poll() is None:
        if partial.exists() and partial.stat().st_size >= size:
            process.kill()
            break
    process.communicate()
    return process.returncode == -9


def read_state(partial: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """What a killed process left."""
    left = Partial(partial)
    with monkeypatch.context() as patched:
        patched.setattr("embedsvc.bulk.partial._differences", lambda *_: [])
        left.begin(None)  # type: ignore[arg-type]
    left.close(keep=True)
    return left.state


def read_rows(path: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows without their vectors, and the vectors."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        vectors = np.stack(table["embedding"].to_numpy())
        return table.drop_columns(["embedding"]).to_pylist(), vectors
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows, np.array([row.pop("embedding") for row in rows])


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_the_output_of_a_run_that_was_killed_at_many_moments_is_that_of_one_that_was_not(
    folder: Path, ending: str
) -> None:
    finish(start(f"whole.{ending}", "--backend", "numpy"))
    whole, whole_vectors = read_rows(folder / f"whole.{ending}")
    assert len(whole) == ROWS - len(BAD)
    partial = folder / f"out.{ending}.partial"
    kills, size = 0, 0
    while kill_at(start(f"out.{ending}", "--backend", "numpy"), partial, size):
        kills += 1
        size = partial.stat().st_size + 60_000 if partial.exists() else 1
    assert kills >= 4
    rows, vectors = read_rows(folder / f"out.{ending}")
    assert rows == whole
    np.testing.assert_allclose(vectors, whole_vectors, atol=1e-6)
    rejects = [json.loads(line) for line in open(f"out.{ending}.rejects.jsonl")]
    assert [bad["line"] for bad in rejects] == list(BAD)
    left = {path.name for path in folder.iterdir() if path.name.startswith(("out", "."))}
    about = {f"out.{ending}.about.json"} if ending == "jsonl" else set()
    assert left == {f"out.{ending}", f"out.{ending}.rejects.jsonl", *about}


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def test_what_was_finished_is_not_asked_for_again(
    folder: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by the server itself, in the middle of a request."""
    options = ("--url", fake.url, "--parallel", "2")
    done = 0
    for moment in (1, 200, 900, 2000):
        fake.texts.clear()
        process = start("out.npy", *options)

        def kill(count: int, process: subprocess.Popen[bytes] = process, at: int = moment) -> None:
            if count >= at:
                process.kill()

        fake.seen = kill
        process.communicate(timeout=50)
        assert process.returncode == -9
        asked = [int(text.rpartition(" ")[2].lstrip("ab") or 0) for text in fake.texts]
        partial = folder / "out.npy.partial"
        assert min(asked) >= done
        done = read_state(partial, monkeypatch).items
    assert done > 500
    fake.seen = lambda count: None
    fake.texts.clear()
    said = finish(start("out.npy", *options))
    assert f"{done:,} rows were done before" in said
    assert len(fake.texts) == ROWS - done - sum(line > done for line in BAD)
    vectors = np.load("out.npy")
    rows = [json.loads(line) for line in open("out.npy.rows.jsonl")]
    assert [row["n"] for row in rows] == [i for i in range(ROWS) if i + 1 not in BAD]
    np.testing.assert_array_equal(vectors, [vector_of(row["text"]) for row in rows])


def test_killed_while_the_output_is_put_together(folder: Path, fake: FakeServer) -> None:
    process = start("out.parquet", "--url", fake.url)
    unfinished = folder / ".out.parquet.unfinished"
    while not unfinished.exists():
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not (folder / "out.parquet").exists()
    before = len(fake.texts)
    said = finish(start("out.parquet", "--url", fake.url))
    assert f"{ROWS:,} rows were done before" in said
    assert len(fake.texts) == before
    rows, vectors = read_rows(folder / "out.parquet")
    np.testing.assert_array_equal(vectors, [vector_of(row["text"]) for row in rows])
    assert len(rows) == ROWS - len(BAD)
    assert not unfinished.exists()
