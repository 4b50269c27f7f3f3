"""`embedsvc embed` as it is typed."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from embedsvc.cli import main
from tests.support.documents import ADDRESS
from tests.support.embed_command import TEXTS, embed
from tests.support.fake_server import FakeServer, refusal, vector_of
from tests.support.project import ROOT


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ((), {}),
        (("--input-type", "document"), {"input_type": "document"}),
        (("--prompt", "hello "), {"prompt": "hello "}),
        (("--dimensions", "8"), {"dimensions": 8}),
        (("--model", "alias", "--truncate", "end"), {"truncate": "end"}),
        (("--truncate", "chunk"), {"truncate": "chunk"}),
        (("--model", "other"), {"model": "other"}),
    ],
)
def test_vectors_are_those_of_the_server(
    served: TestClient, options: tuple[str, ...], fields: dict[str, Any], embed_folder: Path
) -> None:
    texts = [*TEXTS, "hello world " * 30] if "truncate" in fields else TEXTS
    (embed_folder / "in.jsonl").write_text("".join(json.dumps({"body": t}) + "\n" for t in texts))
    assert embed("--output", "out.npy", *options) == 0
    body = {"model": "tiny", "input": texts} | fields
    answer = served.post("/v1/embeddings", json=body).json()
    expected = np.array([row["embedding"] for row in answer["data"]], np.float32)
    np.testing.assert_allclose(np.load("out.npy"), expected, atol=1e-6)


def test_late_chunks_are_those_of_the_server(served: TestClient) -> None:
    assert embed("--output", "out.parquet", "--chunking", "2:1") == 0
    body = {"model": "tiny", "input": TEXTS, "chunking": {"size": 2, "overlap": 1}}
    rows = served.post("/v1/embeddings", json=body).json()["data"]
    table = pq.read_table("out.parquet")
    expected = np.array([row["embedding"] for row in rows], np.float32)
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), expected, atol=1e-6)
    assert table["start"].to_pylist() == [row["chunk"]["start"] for row in rows]
    assert table["id"].to_pylist() == [row["chunk"]["input"] + 1 for row in rows]


def test_what_is_kept_and_what_is_said(
    embed_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--id-column", "key", "--keep", "n", "--output", "out.parquet")
    assert embed(*options, "--dtype", "float16") == 0
    table = pq.read_table("out.parquet")
    assert table.column_names == ["id", "text", "n", "embedding"]
    assert table.select(["id", "text", "n"]).to_pylist()[9] == {
        "id": "k9",
        "text": "world world",
        "n": 9,
    }
    said, errors = capsys.readouterr()
    assert said.startswith("out.parquet: 64 vectors of 16 dimensions in float16, by tiny\n")
    assert "64 rows in" in said
    assert errors == ""
    assert [path.name for path in sorted(embed_folder.iterdir())] == [
        "in.jsonl",
        "models.toml",
        "other",
        "out.parquet",
    ]


def test_rows_set_aside_are_told_in_the_exit_code(
    embed_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (embed_folder / "in.jsonl").open("a") as file:
        file.write("oops\n" + json.dumps({"body": "hello " * 99}) + "\n" + "{}\n" * 20)
    assert embed("--output", "out.jsonl") == 1
    said, errors = capsys.readouterr()
    assert said.endswith("  22 rows were set aside, in out.jsonl.rejects.jsonl\n")
    lines = errors.splitlines()
    assert lines[0].startswith("in.jsonl:65: not JSON")
    assert "in.jsonl:66: Invalid 'input': maximum context length is 32 tokens" in lines[1]
    assert lines[10:] == ["and more, which the file of rejects will have"]
    assert len((embed_folder / "out.jsonl.rejects.jsonl").read_text().splitlines()) == 22
    assert embed("--output", "again.jsonl", "--strict") == 6
    assert "embedsvc: in.jsonl:65: not JSON" in capsys.readouterr().err
    assert not (embed_folder / "again.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--output", "out.csv"), 6, "an output's name ends in .parquet, .jsonl, .npy"),
        (("--output", "no/out.npy"), 6, "no/out.npy.partial: No such file or directory"),
        (("--output", "o.npy", "--column", "text"), 6, "no column `text`; there are: key, body, n"),
        (("--output", "o.npy", "--model", "x"), 3, "`x` is neither the name of a card nor"),
        (("--output", "o.npy", "--model", "tiny:query"), 3, "by --input-type query"),
        (("--output", "o.npy", "--model", "tiny-query"), 3, "by --input-type query"),
        (("--output", "o.npy", "--dimensions", "9"), 6, "Invalid value for 'dimensions' = 9"),
        (("--output", "o.npy", "--input-type", "x"), 6, "Invalid value for 'input_type' = x"),
        (("--output", "o.npy", "--keep", "id"), 3, "the output has a column of that name"),
        (("--output", "o.npy", "--delimiter", "ab"), 3, "--delimiter must be one character"),
        (("--output", "o.npy", "--url", "x"), 3, "--url must be like http://"),
        (("--output", "o.npy", "--url", "http://x", "--parallel", "0"), 3, "at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing_behind(
    embed_folder: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert embed(*arguments) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in sorted(embed_folder.iterdir())] == [
        "in.jsonl",
        "models.toml",
        "other",
    ]


def test_a_server_does_it_in_place_of_this_process(embed_folder: Path, fake: FakeServer) -> None:
    fake.script += [refusal(429, "busy", Retry_After="0"), None, refusal(503, "", Retry_After="0")]
    assert embed("--url", fake.url, "--api-key", "k", "--output", "out.npy") == 0
    np.testing.assert_array_equal(np.load("out.npy"), [vector_of(text) for text in TEXTS])
    assert fake.keys == {"Bearer k"}
    assert {request["model"] for request in fake.requests} == {"fake"}
    lines = (embed_folder / "out.npy.rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines][:2] == [
        {"id": 1, "text": TEXTS[0]},
        {"id": 2, "text": TEXTS[1]},
    ]


def test_texts_that_a_server_refuses_are_set_aside(embed_folder: Path, fake: FakeServer) -> None:
    texts = {"a b": refusal(400, "Invalid 'INPUT': no"), "c d": refusal(500, "oh")}
    fake.refuse = texts.get  # type: ignore[assignment]
    assert embed("--url", fake.url, "--output", "out.npy") == 1
    rejects = [
        json.loads(line)
        for line in (embed_folder / "out.npy.rejects.jsonl").read_text().splitlines()
    ]
    assert [(bad["row"]["text"], bad["reason"]) for bad in rejects] == [
        ("a b", "Invalid 'input': no"),
        ("c d", "oh"),
    ]
    assert np.load("out.npy").shape == (62, 8)


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "embedsvc", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=50)


def test_lines_are_piped_in(embed_folder: Path, fake: FakeServer) -> None:
    options = ("embed", "--format", "lines", "--url", fake.url, "--output", "out.jsonl")
    done = run(*options, stdin=b"one\n\ntwo\n")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (embed_folder / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [(1, "one"), (3, "two")]


def test_ctrl_c_keeps_what_is_done_also_while_a_pipe_is_silent(
    embed_folder: Path, fake: FakeServer
) -> None:
    lines = "".join(f"text {i}\n" for i in range(2000)).encode()
    options = ("embed", "-", "--format", "lines", "--url", fake.url, "--output", "out.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "embedsvc", *options],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(lines[:10_000])
        process.stdin.flush()
        partial = embed_folder / "out.jsonl.partial"
        while not partial.exists() or partial.stat().st_size < 5000:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)  # it waits for more lines, which do not come
        assert process.wait(timeout=20) == 130
        said = process.stderr.read().decode()
        process.stdin.close()
    assert said == ("interrupted; what is done is in out.jsonl.partial: start again to go on\n")
    before = len(fake.texts)
    done = run(*options, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert b"going on after" in done.stderr
    assert len(fake.texts) < before + 2000
    rows = [json.loads(line) for line in (embed_folder / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"text {i}" for i in range(2000)]


def test_the_examples_of_the_documentation_work(embed_folder: Path, fake: FakeServer) -> None:
    rows = [{"id": i, "body": text, "stars": i % 5} for i, text in enumerate(TEXTS)]
    (embed_folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (embed_folder / "notes").mkdir()
    (embed_folder / "notes" / "one.md").write_text("hello world " * 40)
    (embed_folder / "log.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (embed_folder / "a.csv").write_text("title,year\nhello,1\n")
    (embed_folder / "b.csv.gz").write_bytes(gzip.compress(b"title\nworld\n"))
    page = (ROOT / "docs" / "bulk.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    script = script.replace(ADDRESS + "/v1", fake.url)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], env=os.environ | {"PATH": path}, capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    for output, count in (("reviews", 64), ("titles", 2), ("served", 64)):
        assert pq.read_table(f"{output}.parquet").num_rows == count
    assert pq.read_table("titles.parquet")["id"].to_pylist() == ["a.csv:2", "b.csv.gz:2"]
    assert len((embed_folder / "notes.jsonl").read_text().splitlines()) == 1
    assert np.load("log.npy").shape == (2, 16)


def test_help_begins_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("embed", "search", "similarity"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = capsys.readouterr().out
        assert said.index("examples:") < said.index("options:")
        assert f"  embedsvc {command} " in said
