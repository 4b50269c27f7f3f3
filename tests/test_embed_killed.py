"""`embedsvc embed` killed for good (kill -9) again and again, against a run that was let be."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.journal import Journal, Record
from tests.support.fake_server import FakeServer, vector_of

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


def start(output: str, *options: str, file: str = "in.jsonl") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "embedsvc", "embed", file, *OPTIONS, *options]
    return subprocess.Popen(
        [*command, "--output", output],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> str:
    """Let it end, with rows set aside; what it said."""
    said, errors = process.communicate(timeout=50)
    assert process.returncode == 1, errors
    return said.decode()


def size_of(path: Path) -> int:
    """Bytes of a file, which may go away at any moment; -1 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def read_lines(name: str) -> list[Any]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def read_state(partial: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """What a killed process left."""
    left = Journal(partial)
    with monkeypatch.context() as patched:
        patched.setattr("embedsvc.bulk.journal._differences", lambda *_: [])
        left.begin(None)  # type: ignore[arg-type]
    left.close(keep=True)
    return left.state


def read_rows(path: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows of a Parquet file without their vectors, and the vectors."""
    table = pq.read_table(path)
    return table.drop_columns(["embedding"]).to_pylist(), np.stack(table["embedding"].to_numpy())


def feed(process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
    """Pipe some of the input in; more may follow."""
    assert process.stdin
    process.stdin.write(b"".join(lines))
    process.stdin.flush()


def test_the_output_of_a_run_that_was_killed_again_and_again_is_that_of_one_that_was_not(
    folder: Path,
) -> None:
    """It waits for more input when it is killed, so that it cannot have ended before."""
    lines = (folder / "in.jsonl").read_bytes().splitlines(keepends=True)
    finish(start("whole.parquet", "--backend", "numpy"))
    whole, whole_vectors = read_rows(folder / "whole.parquet")
    assert len(whole) == ROWS - len(BAD)
    partial = folder / "out.parquet.partial"
    piped = ("--backend", "numpy", "--format", "jsonl")
    size = 0
    for count in (100, 800, 801, 1600, 2400):
        process = start("out.parquet", *piped, file="-")
        feed(process, lines[:count])
        while size_of(partial) <= size and count != 801:  # 801 adds too little to be written
            assert process.poll() is None
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        size = size_of(partial)
    process = start("out.parquet", *piped, file="-")
    feed(process, lines)
    finish(process)
    rows, vectors = read_rows(folder / "out.parquet")
    assert rows == whole
    np.testing.assert_allclose(vectors, whole_vectors, atol=1e-6)
    assert [bad["line"] for bad in read_lines("out.parquet.rejects.jsonl")] == list(BAD)
    left = {path.name for path in folder.iterdir() if path.name.startswith(("out", "."))}
    assert left == {"out.parquet", "out.parquet.rejects.jsonl"}


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
    assert done > 0
    fake.seen = lambda count: None
    fake.texts.clear()
    said = finish(start("out.npy", *options))
    assert f"{done:,} rows were done before" in said
    assert len(fake.texts) == ROWS - done - sum(line > done for line in BAD)
    vectors = np.load("out.npy")
    rows = read_lines("out.npy.rows.jsonl")
    assert [row["n"] for row in rows] == [i for i in range(ROWS) if i + 1 not in BAD]
    np.testing.assert_array_equal(vectors, [vector_of(row["text"]) for row in rows])


def test_killed_while_the_output_is_put_together(folder: Path, fake: FakeServer) -> None:
    held = folder / ".out.npy.unfinished"
    os.mkfifo(held)  # nobody reads it, so whoever opens it to write stays there
    process = start("out.npy", "--url", fake.url)
    while size_of(folder / ".out.npy.rows.jsonl.unfinished") < 0:
        assert process.poll() is None
    process.kill()
    process.communicate()
    held.unlink()
    assert not (folder / "out.npy").exists()
    before = len(fake.texts)
    said = finish(start("out.npy", "--url", fake.url))
    assert f"{ROWS:,} rows were done before" in said
    assert len(fake.texts) == before
    rows = read_lines("out.npy.rows.jsonl")
    np.testing.assert_array_equal(np.load("out.npy"), [vector_of(row["text"]) for row in rows])
    assert len(rows) == ROWS - len(BAD)
    assert not list(folder.glob(".out*"))
