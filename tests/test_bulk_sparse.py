"""`embedsvc embed --type sparse`: what is written, what it goes on from, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.job import Run
from embedsvc.bulk.journal import Journal
from embedsvc.bulk.manifest import sketch
from embedsvc.cli import main
from embedsvc.serving.embedded import SparseVector
from tests.support.app import serve
from tests.support.sparse_models import SPARSE_CASES

TEXTS = ["hello world", "a b c", "b", "hello a hello", "d e f g"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SPARSE_CASES["bert-routed"].write(tmp_path / "model")
    (tmp_path / "models.toml").write_text('[models.splade]\npath = "model"\ntask = "sparse"\n')
    lines = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(TEXTS))
    (tmp_path / "in.jsonl").write_text(lines)
    return tmp_path


def embed(*arguments: str) -> int:
    return main(["embed", "in.jsonl", "--type", "sparse", "--backend", "numpy", *arguments])


def served(**fields: Any) -> list[dict[str, Any]]:
    body = {"model": "splade", "input": TEXTS, "embedding_types": ["sparse"]} | fields
    with serve(models=Path("models.toml")) as client:
        rows = client.post("/v1/embeddings", json=body).json()["data"]
    return [row["sparse_embedding"] for row in rows]


def check(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one["indices"] == other["indices"]
        np.testing.assert_allclose(one["values"], other["values"], atol=1e-5)


@pytest.mark.parametrize("kind", ["document", "query"])
def test_weights_are_those_of_the_server(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = served(input_type=kind)
    assert embed("--output", "out.jsonl", "--input-type", kind, "--keep", "n") == 0
    assert f"{len(TEXTS)} sparse vectors, by splade" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["text"], row["n"]) for row in rows] == [(t, i) for i, t in enumerate(TEXTS)]
    check([row["embedding"] for row in rows], expected)
    assert embed("--output", "out.parquet", "--input-type", kind) == 0
    table = pq.read_table("out.parquet")
    parts = {"indices": pa.list_(pa.int32()), "values": pa.list_(pa.float32())}
    assert table.schema.field("embedding").type == pa.struct(parts)
    check(table["embedding"].to_pylist(), expected)


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_a_run_goes_on_where_it_ended(
    output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "write_output", stop)
        assert embed("--output", output) != 0
    assert not Path(output).exists()
    appended: list[object] = []
    monkeypatch.setattr(Journal, "append", lambda _, records: appended.extend(records))
    assert embed("--output", output) == 0
    assert not appended, "what was done is done again"
    assert f"going on after {len(TEXTS)} rows" in capsys.readouterr().err
    assert Path(output).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--output", "out.npy"), "not .npy"),
        (("--output", "out.jsonl", "--dimensions", "8"), "not with --dimensions"),
        (("--output", "out.jsonl", "--chunking", "8"), "not with --chunking"),
        (("--output", "out.jsonl", "--dtype", "int8"), "not with --dtype"),
        (("--output", "out.jsonl", "--url", "http://127.0.0.1:1/v1"), "not with --url"),
    ],
)
def test_what_sparse_vectors_have_not_is_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(*arguments) != 0
    assert said in capsys.readouterr().err


def test_search_refuses_what_it_cannot_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert embed("--output", "out.jsonl") == 0
    assert main(["search", "out.jsonl", "hello", "--backend", "numpy"]) != 0
    assert "out.jsonl has sparse vectors" in capsys.readouterr().err


def test_a_sketch_tells_vectors_apart() -> None:
    values = np.array([1, 2], np.float32)
    one, other = (sketch(SparseVector(np.array(ids, np.int32), values)) for ids in ([1, 9], [2, 9]))
    assert one.tolist() != other.tolist()
